package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/spf13/pflag"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/onboard"
)

// site says which cluster a command is for that changes something in AWS too.
type site struct {
	place
	region string
}

func (s *site) flags(f *pflag.FlagSet) {
	s.place.flags(f)
	f.StringVar(&s.region, "region", "", "the AWS `region` of the cluster; else the one that its nodes are in")
}

// session is a cluster and the account that it is in, both logged in to, and proven to belong together.
type session struct {
	cluster   dynamic.Interface
	account   *awsadmin.Account
	env       onboard.Environment
	instances []awsadmin.Instance
	nodes     []onboard.NodeInstance // instances that are nodes
	ref       onboard.ClusterRef
	store     string // kOps' state store; empty where the cluster does not say

	login *rest.Config // to the cluster
	aws   aws.Config
}

// reach logs in to the cluster and to AWS, and does not compare them yet.
func (c *console) reach(ctx context.Context, s site) (at session, err error) {
	k, err := c.connect(ctx, s.place)
	if err != nil {
		return at, err
	}
	at.login, at.store, at.ref = k.login, k.store, onboard.ClusterRef{Cluster: k.name, Context: k.in.Name}
	if at.cluster, err = identitymap.NewClient(at.login); err != nil {
		return at, err
	}
	if at.nodes, err = onboard.NodeInstances(ctx, at.cluster); err != nil {
		return at, err
	}
	region, err := onboard.RegionOf(at.nodes, s.region, at.ref)
	if err != nil {
		return at, err
	}
	if at.aws, err = awsLogin(ctx, region); err != nil {
		return at, err
	}
	at.account = awsadmin.New(at.aws)
	return at, nil
}

// stand reaches the cluster and its account, and makes sure that they belong together. It is the only way to an account.
func (c *console) stand(ctx context.Context, s site) (session, error) {
	at, err := c.reach(ctx, s)
	if err != nil {
		return at, err
	}
	if at.env, at.instances, err = onboard.VerifyCluster(ctx, at.account, at.nodes, at.ref); err != nil {
		return at, err
	}
	at.env.NodeRoles, err = onboard.NodeRoles(ctx, at.account, at.instances)
	return at, err
}

// awsLogin finds credentials where the AWS CLI would.
func awsLogin(ctx context.Context, region string) (aws.Config, error) {
	const advice = "log in as for the AWS CLI, with AWS_PROFILE for example"
	bounded, cancel := context.WithTimeout(ctx, credentialsLimit)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(bounded, config.WithRegion(region), config.WithAppID("kops-spot"))
	if err != nil {
		return cfg, fmt.Errorf("reading how to log in to AWS: %w: %s", err, advice)
	}
	if _, err = cfg.Credentials.Retrieve(bounded); err != nil {
		detail := ": " + err.Error()
		if strings.Contains(detail, "no EC2 IMDS role found") { // the last place was looked into, so nothing was configured
			detail = ""
		}
		return cfg, fmt.Errorf("%s%s: %s", noCredentials, detail, advice)
	}
	return cfg, nil
}
