package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"
	"k8s.io/client-go/dynamic"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfigs may use it, as with kubectl
	"k8s.io/client-go/rest"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/spot"
)

// cluster is a connection to the kOps cluster that the user selected.
type cluster struct {
	*kube.Cluster
	objects dynamic.Interface // of any kind
	ref     onboard.ClusterRef
	store   string // kOps' state store, as bucket[/folder]; empty if unknown
	config  *rest.Config
}

// connect connects to the cluster and verifies that it is the selected one. No command connects in another way.
func (c *console) connect(ctx context.Context, p kubeFlags) (k cluster, err error) {
	cfg, in, err := c.kubeconfig(p).LogIn("kops-spot/" + version)
	if err != nil {
		return k, err
	}
	k.config, k.ref.Context = cfg, in.Name
	if k.Cluster, err = kube.New(cfg); err != nil {
		return k, err
	}
	if k.objects, err = identitymap.NewClient(cfg); err != nil {
		return k, err
	}
	given := cmp.Or(p.cluster, c.getenv("KOPS_SPOT_CLUSTER"))
	own, err := k.KopsName(ctx, given)
	if err != nil {
		return k, err
	}
	// The cluster knows its store. The variable may be for other clusters, too.
	store := cmp.Or(p.store, own.Store, c.getenv("KOPS_STATE_STORE"))
	k.store = strings.Trim(strings.TrimPrefix(store, "s3://"), "/")
	k.ref.Cluster, err = clusterName(given, own.Name, in)
	return k, err
}

// kubeconfig selects the same files as kubectl.
func (c *console) kubeconfig(p kubeFlags) kube.Kubeconfig {
	files := slices.DeleteFunc(filepath.SplitList(c.getenv("KUBECONFIG")), func(f string) bool { return f == "" })
	if home := c.getenv("HOME"); len(files) == 0 && home != "" {
		files = append(files, filepath.Join(home, ".kube", "config"))
	}
	return kube.Kubeconfig{File: p.kubeconfig, Files: files, Context: p.context}
}

// instances returns the instances of the cluster's nodes, and their region. flag is --region.
func (k cluster) instances(ctx context.Context, flag string) (nodes []onboard.NodeInstance, region string, err error) {
	if nodes, err = onboard.NodeInstances(ctx, k.objects); err == nil {
		region, err = onboard.RegionOf(nodes, flag, k.ref)
	}
	return nodes, region, err
}

// clusterName returns the cluster's name: the given one, else the cluster's own, else the kubeconfig's, as kOps writes
// it. It is an error if the given name is not the cluster's own.
func clusterName(given, own string, in kube.Context) (string, error) {
	switch {
	case given != "" && !kube.IsKopsName(given):
		return "", fmt.Errorf("%q is not the name of a kOps cluster: use a DNS name, such as prod.example.com", given)
	case given != "" && own != "" && given != own:
		return "", fmt.Errorf("wrong cluster: expected %s, but the kubeconfig context %s connects to %s: "+
			"choose another context with --context, or set --cluster %s", given, in.Name, own, own)
	case given == "" && own == "" && !kube.IsKopsName(in.Cluster):
		return "", errors.New("the name of the kOps cluster is unknown: neither the cluster nor the kubeconfig contains " +
			"it: set it with --cluster")
	}
	return cmp.Or(given, own, in.Cluster), nil
}

// findNode finds a node by its name or its instance ID. hint is appended to the error if there is none.
func findNode(ctx context.Context, k cluster, name, hint string) (spot.Node, error) {
	n, err := k.NodeNamed(ctx, name)
	if errors.Is(err, spot.ErrNotFound) && onboard.InstanceID.MatchString(name) {
		n, err = k.NodeOf(ctx, name)
	}
	if errors.Is(err, spot.ErrNotFound) {
		return n, fmt.Errorf("node %s not found in %s: kubectl get nodes lists the nodes%s", name, k.ref.Cluster, hint)
	}
	return n, err
}

// instance is the EC2 instance of a node.
type instance struct{ id, region string }

func instanceOf(n spot.Node) (instance, error) {
	id, region, ok := onboard.InstanceOf(n.ProviderID)
	switch {
	case n.ProviderID == "":
		return instance{}, fmt.Errorf("node %s has an empty spec.providerID: if it has just registered, try again in a "+
			"minute; otherwise, check the log of the cloud controller", n.Name)
	case !ok:
		return instance{}, fmt.Errorf("node %s is not an EC2 instance: its spec.providerID is %s", n.Name, n.ProviderID)
	}
	return instance{id, cmp.Or(n.Labels["topology.kubernetes.io/region"], region)}, nil
}

// session is a connection to a cluster and to its AWS account.
type session struct {
	cluster
	account *awsadmin.Account
	env     onboard.Environment
	tagged  []awsadmin.Instance    // with the cluster's tag
	nodes   []onboard.NodeInstance // instances that are nodes
	aws     aws.Config
}

// openUnverified connects to the cluster and to AWS without verifying that they belong together.
func (c *console) openUnverified(ctx context.Context, s awsFlags) (at session, err error) {
	if at.cluster, err = c.connect(ctx, s.kubeFlags); err != nil {
		return at, err
	}
	var region string
	if at.nodes, region, err = at.instances(ctx, s.region); err != nil {
		return at, err
	}
	at.aws, err = c.awsConfig(ctx, region)
	at.account = awsadmin.New(at.aws)
	return at, err
}

// openSession connects to the cluster and its account and verifies that they belong together.
func (c *console) openSession(ctx context.Context, s awsFlags) (session, error) {
	at, err := c.openUnverified(ctx, s)
	if err != nil {
		return at, err
	}
	if at.env, at.tagged, err = onboard.VerifyCluster(ctx, at.account, at.nodes, at.ref); err != nil {
		return at, err
	}
	at.env.NodeRoles, err = onboard.NodeRoles(ctx, at.account, at.nodes, at.tagged)
	return at, err
}

// site returns what a discovery needs. given are the stack's parameters.
func (at session) site(given map[string]string) install.Site {
	s := install.Site{Cluster: at.objects, Login: at.config, AWS: at.account, Name: at.env.Cluster, Account: at.env.Account,
		VPC: at.env.VPC, Store: install.Store(at.store), Given: given}
	for _, n := range at.nodes {
		w := install.Worker{Node: n.Node, Group: n.Group, OS: n.OS, Ready: n.Ready}
		for _, i := range at.tagged {
			if i.ID == n.ID {
				w.Group, w.Spot = cmp.Or(i.Tags[spot.TagInstanceGroup], w.Group), i.Spot
			}
		}
		if !n.ControlPlane {
			s.Workers = append(s.Workers, w)
		}
	}
	return s
}

// onboarding returns an onboarding of the cluster.
func (at session) onboarding(spec onboard.Spec) *onboard.Onboarding {
	spec.Environment, spec.Permissions = at.env, cmp.Or(spec.Permissions, onboard.Least)
	if spec.Store == nil {
		spec.Store = onboard.InSecretsManager{Cluster: at.env.Cluster}
	}
	return &onboard.Onboarding{AWS: at.account, Cluster: at.objects, Spec: spec}
}

// errNoCredentials is the error if no source has AWS credentials.
var errNoCredentials = errors.New("no AWS credentials")

// credentialsLimit limits the search for credentials: a person may have to touch a key or to enter an MFA token.
const credentialsLimit = 2 * time.Minute

// awsConfig finds credentials in the same places as the AWS CLI. At a terminal, it asks for an MFA token. The instance
// metadata service is the last source: elsewhere than on EC2, it does not respond.
func (c *console) awsConfig(ctx context.Context, region string) (aws.Config, error) {
	const advice = "set credentials as for the AWS CLI, for example with AWS_PROFILE"
	ctx, cancel := context.WithTimeout(ctx, credentialsLimit)
	defer cancel()
	options := []func(*config.LoadOptions) error{config.WithRegion(region), config.WithAppID("kops-spot"),
		config.WithLogger(logging.Nop{})}
	if !onEC2() {
		options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	if isTerminal(c.stdin) {
		options = append(options, config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			o.TokenProvider = c.mfaToken
		}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	var needsToken config.AssumeRoleTokenProviderNotSetError
	switch {
	case errors.As(err, &needsToken):
		return cfg, errors.New("the AWS profile needs an MFA token: run this at a terminal, or first run " +
			`eval "$(aws configure export-credentials --format env)"`)
	case err != nil:
		return cfg, fmt.Errorf("loading the AWS configuration: %w: %s", err, advice)
	}
	if _, err = cfg.Credentials.Retrieve(ctx); err != nil {
		detail := ": " + err.Error()
		if strings.Contains(detail, "no EC2 IMDS role found") { // the last source was tried, so none is configured
			detail = ""
		}
		return cfg, fmt.Errorf("%w%s: %s", errNoCredentials, detail, advice)
	}
	return kopsaws.PlainBodies(cfg), nil
}

// mfaToken asks for an MFA token.
func (c *console) mfaToken() (string, error) {
	fmt.Fprint(c.stderr, "MFA token: ")
	line, err := bufio.NewReader(c.stdin).ReadString('\n')
	return strings.TrimSpace(line), err
}

// onEC2 reports whether this computer is an EC2 instance.
func onEC2() bool {
	vendor, _ := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	return strings.HasPrefix(string(vendor), "Amazon EC2")
}
