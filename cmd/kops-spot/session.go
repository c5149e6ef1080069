package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/internal/onboard"
)

// session is a connection to a cluster and to its AWS account.
type session struct {
	cluster   dynamic.Interface
	account   *awsadmin.Account
	env       onboard.Environment
	instances []awsadmin.Instance
	nodes     []onboard.NodeInstance // instances that are nodes
	ref       onboard.ClusterRef
	store     string // kOps' state store; empty if unknown

	config *rest.Config // of the cluster
	aws    aws.Config
}

// openUnverified connects to the cluster and to AWS without verifying that they belong together.
func (c *console) openUnverified(ctx context.Context, s awsFlags) (at session, err error) {
	k, err := c.connect(ctx, s.kubeFlags)
	if err != nil {
		return at, err
	}
	at.config, at.store, at.ref = k.config, k.store, onboard.ClusterRef{Cluster: k.name, Context: k.context.Name}
	if at.cluster, err = identitymap.NewClient(at.config); err != nil {
		return at, err
	}
	if at.nodes, err = onboard.NodeInstances(ctx, at.cluster); err != nil {
		return at, err
	}
	region, err := onboard.RegionOf(at.nodes, s.region, at.ref)
	if err != nil {
		return at, err
	}
	at.aws, err = awsConfig(ctx, region)
	at.account = awsadmin.New(at.aws)
	return at, err
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

// onboarding returns an onboarding of the cluster.
func (at session) onboarding(spec onboard.Spec) *onboard.Onboarding {
	spec.Environment, spec.Permissions = at.env, cmp.Or(spec.Permissions, onboard.Least)
	return &onboard.Onboarding{AWS: at.account, Cluster: at.cluster, Spec: spec}
}

// errNoCredentials is the error if no source has AWS credentials.
var errNoCredentials = errors.New("no AWS credentials")

// awsConfig finds credentials in the same places as the AWS CLI.
func awsConfig(ctx context.Context, region string) (aws.Config, error) {
	const advice = "set credentials as for the AWS CLI, for example with AWS_PROFILE"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // outside EC2, the last source does not respond
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithAppID("kops-spot"))
	if err != nil {
		return cfg, fmt.Errorf("loading the AWS configuration: %w: %s", err, advice)
	}
	if _, err = cfg.Credentials.Retrieve(ctx); err != nil {
		detail := ": " + err.Error()
		if strings.Contains(detail, "no EC2 IMDS role found") { // the last source was tried, so none is configured
			detail = ""
		}
		return cfg, fmt.Errorf("%w%s: %s", errNoCredentials, detail, advice)
	}
	return cfg, nil
}
