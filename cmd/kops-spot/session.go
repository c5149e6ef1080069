package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/onboard"
)

// session is a connection to a cluster and to the AWS account that it runs in.
type session struct {
	cluster   dynamic.Interface
	account   *awsadmin.Account
	env       onboard.Environment
	instances []awsadmin.Instance
	nodes     []onboard.NodeInstance // instances that are nodes
	ref       onboard.ClusterRef
	store     string // kOps' state store; empty if unknown

	login *rest.Config // to the cluster
	aws   aws.Config
}

// openUnverified connects to the cluster and to AWS without verifying that they belong together.
func (c *console) openUnverified(ctx context.Context, s awsFlags) (at session, err error) {
	k, err := c.connect(ctx, s.kubeFlags)
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

// openSession connects to the cluster and its account and verifies that they belong together.
func (c *console) openSession(ctx context.Context, s awsFlags) (session, error) {
	at, err := c.openUnverified(ctx, s)
	if err != nil {
		return at, err
	}
	if at.env, at.instances, err = onboard.VerifyCluster(ctx, at.account, at.nodes, at.ref); err != nil {
		return at, err
	}
	at.env.NodeRoles, err = onboard.NodeRoles(ctx, at.account, at.instances)
	return at, err
}

// awsLogin finds credentials in the same places as the AWS CLI.
func awsLogin(ctx context.Context, region string) (aws.Config, error) {
	const advice = "set credentials as for the AWS CLI, for example with AWS_PROFILE"
	bounded, cancel := context.WithTimeout(ctx, credentialsLimit)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(bounded, config.WithRegion(region), config.WithAppID("kops-spot"))
	if err != nil {
		return cfg, fmt.Errorf("loading the AWS configuration: %w: %s", err, advice)
	}
	if _, err = cfg.Credentials.Retrieve(bounded); err != nil {
		detail := ": " + err.Error()
		if strings.Contains(detail, "no EC2 IMDS role found") { // the last source was tried, so none is configured
			detail = ""
		}
		return cfg, fmt.Errorf("%s%s: %s", noCredentials, detail, advice)
	}
	return cfg, nil
}
