package main

import (
	"context"
	"errors"
	"time"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

// credentialsLimit bounds the search for credentials: outside EC2, the last source does not respond.
const credentialsLimit = 5 * time.Second

// noCredentials is the reason for not querying AWS.
const noCredentials = "no AWS credentials"

// cloud returns the AWS client for a region. Without credentials, it returns one that fails every query with the reason, so
// that the cluster's half of the explanation is still shown.
func (c *console) cloud(ctx context.Context, region string) (cloud spot.Cloud, whyNot string) {
	cfg, err := awsLogin(ctx, region)
	if err == nil {
		return aws.New(cfg), ""
	}
	c.say(term.Mind, "AWS is not queried: %v, then run this again", err)
	return unasked{why: spot.Permanent(errors.New(noCredentials))}, noCredentials
}

// unasked is a Cloud that says why it is not asked. A Preview asks these two questions and changes noArgs, so nobody
// calls the methods of the Cloud in it, which is none.
type unasked struct {
	spot.Cloud
	why error
}

func (u unasked) Instance(context.Context, string) (spot.Instance, error) {
	return spot.Instance{}, u.why
}

func (u unasked) Membership(context.Context, string) (spot.Membership, error) {
	return spot.Membership{}, u.why
}
