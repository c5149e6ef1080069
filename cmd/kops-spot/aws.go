package main

import (
	"context"
	"errors"
	"time"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

// credentialsLimit bounds the search for credentials: outside of EC2, the last place to look does not answer.
const credentialsLimit = 5 * time.Second

// noCredentials is why AWS is not asked.
const noCredentials = "no AWS credentials"

// cloud is the region as the credentials of whoever runs this show it. Without any, it is one that answers every question
// with why it is not asked: the other half of an answer is one too.
func (c *console) cloud(ctx context.Context, region string) (cloud spot.Cloud, whyNot string) {
	cfg, err := awsLogin(ctx, region)
	if err == nil {
		return aws.New(cfg), ""
	}
	c.say(term.Mind, "AWS is not asked: %v, and run this again to see that half too", err)
	return unasked{why: spot.Permanent(errors.New(noCredentials))}, noCredentials
}

// unasked is a Cloud that says why it is not asked. A Preview asks these two questions and changes nothing, so nobody
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
