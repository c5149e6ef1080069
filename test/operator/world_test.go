package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/test/testenv"
)

// world is an AWS account behind a proxy, and the shell of an operator with access to it and to the cluster.
type world struct {
	*testing.T
	*testenv.FaultProxy
	account string
	program string     // the command line
	cfg     aws.Config // through the proxy
	direct  aws.Config // without the proxy, for the tests' own requests
}

var accounts atomic.Int64

// newWorld returns a new account.
func newWorld(t *testing.T) *world {
	t.Helper()
	number, on := fmt.Sprint(200000000000+accounts.Add(1)), moto().URL
	root := kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: &on, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	c := must(awssts.NewFromConfig(root).AssumeRole(t.Context(), &awssts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::" + number + ":role/administrator"), RoleSessionName: aws.String("test")})).Credentials
	return openWorld(t, number, on, credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken))
}

func openWorld(t *testing.T, account, url string, login aws.CredentialsProvider) *world {
	p := must(testenv.StartFaultProxy(url, recordStored, recordSecrets))
	t.Cleanup(p.Close)
	w := &world{T: t, FaultProxy: p, account: account, direct: kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: &url, Credentials: login})}
	w.cfg = w.direct.Copy()
	w.cfg.BaseEndpoint = &p.URL
	w.cfg.RetryMaxAttempts = 1 // an interrupted run does not retry
	return w
}

var homeWorker string // created on first use; the tests run one after another

// home returns moto's own account, which contains the cluster and delivers its events.
func home(t *testing.T) *world {
	t.Helper()
	w := openWorld(t, account, events().URL, credentials.NewStaticCredentialsProvider("test", "test", ""))
	if homeWorker == "" {
		homeWorker = w.cluster(cluster)
	}
	w.node(homeWorker)
	return w
}

// in returns the world of a subtest.
func (w *world) in(t *testing.T) *world {
	sub := *w
	sub.T = t
	return &sub
}

func (w *world) iam() *awsiam.Client { return awsiam.NewFromConfig(w.direct) }

func (w *world) secrets() *secretsmanager.Client { return secretsmanager.NewFromConfig(w.direct) }

// cluster creates a cluster's VPC, instance profiles and instances, a worker and a master, and returns the worker's ID.
func (w *world) cluster(name string) string {
	w.Helper()
	ctx, client := w.Context(), ec2.NewFromConfig(w.direct)
	vpc := must(client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")}))
	subnet := must(client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: aws.String("10.0.0.0/24")}))
	worker := ""
	for _, group := range []string{"nodes", "masters"} {
		profile := group + "." + name
		must(w.iam().CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: &profile, AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[]}`)}))
		must(w.iam().CreateInstanceProfile(ctx, &awsiam.CreateInstanceProfileInput{InstanceProfileName: &profile}))
		must(w.iam().AddRoleToInstanceProfile(ctx, &awsiam.AddRoleToInstanceProfileInput{InstanceProfileName: &profile, RoleName: &profile}))
		role := map[string]string{"nodes": "k8s.io/role/node", "masters": "k8s.io/role/control-plane"}[group]
		id := w.instance(ec2.RunInstancesInput{SubnetId: subnet.Subnet.SubnetId, IamInstanceProfile: &ec2types.IamInstanceProfileSpecification{Name: &profile}},
			"KubernetesCluster", name, role, "1")
		if group == "nodes" {
			worker = id
		}
	}
	return worker
}

// instance creates a Spot instance with tags and returns its ID.
func (w *world) instance(in ec2.RunInstancesInput, tags ...string) string {
	w.Helper()
	in.ImageId, in.MinCount, in.MaxCount = aws.String("ami-0123456789abcdef0"), aws.Int32(1), aws.Int32(1)
	in.InstanceMarketOptions = &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}
	in.TagSpecifications = []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance}}
	for tag := range slices.Chunk(tags, 2) {
		in.TagSpecifications[0].Tags = append(in.TagSpecifications[0].Tags, ec2types.Tag{Key: &tag[0], Value: &tag[1]})
	}
	return *must(ec2.NewFromConfig(w.direct).RunInstances(w.Context(), &in)).Instances[0].InstanceId
}

// node creates the node of an instance, with the same name, until the test ends.
func (w *world) node(instance string) {
	w.Helper()
	try(cp().CreateNodes(w.Context(), testenv.Node{InstanceID: instance, Zone: region + "a"}))
	w.Cleanup(func() { try(deleteNode(instance)) })
}

// newNode creates an instance of a cluster and its node, until the test ends.
func (w *world) newNode(of string) string {
	w.Helper()
	id := w.instance(ec2.RunInstancesInput{}, "KubernetesCluster", of)
	w.Cleanup(func() {
		must(ec2.NewFromConfig(w.direct).TerminateInstances(context.Background(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}))
	})
	w.node(id)
	return id
}

// command runs kops-spot and records its output, which is searched for secrets.
func (w *world) command(args ...string) (stdout, stderr string, err error) {
	w.Helper()
	return w.commandWith(nil, args...)
}

func (w *world) commandWith(environ []string, args ...string) (stdout, stderr string, err error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	defer cancel()
	program := w.program
	if program == "" {
		program = filepath.Join(programs(), "kops-spot")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = slices.Concat(w.environ(), environ)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if ctx.Err() != nil {
		w.Fatalf("kops-spot %q hangs:\n%s%s", args, out.String(), errs.String())
	}
	if !slices.Contains(args, "--print-credentials") {
		outputs.add(out.String())
	}
	outputs.add(errs.String())
	return out.String(), errs.String(), err
}

// environ returns the environment of the operator's shell.
func (w *world) environ() []string {
	w.Helper()
	c := must(w.cfg.Credentials.Retrieve(w.Context()))
	return []string{"PATH=" + programs() + ":" + os.Getenv("PATH"), "HOME=" + w.TempDir(), "KUBECONFIG=" + cp().Kubeconfig(), "KOPS_SPOT_CLUSTER=" + cluster,
		"AWS_ENDPOINT_URL=" + w.URL, "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_SESSION_TOKEN=" + c.SessionToken}
}

// mustRun runs kops-spot, which must succeed.
func (w *world) mustRun(args ...string) (stdout, stderr string) {
	w.Helper()
	stdout, stderr, err := w.command(args...)
	if err != nil {
		w.Fatalf("kops-spot %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout, stderr
}

// commandResult is the JSON output of a command.
type commandResult struct {
	Plan        change.Plan
	Applied     bool
	AccessKeyID string `json:"access_key_id"`
	First       string
	OK          bool
	Findings    change.Findings
	Credentials *struct{ AccessKeyID, SecretAccessKey string }
}

// asJSON runs kops-spot, which may fail, and decodes its output.
func (w *world) asJSON(args ...string) (is commandResult, stderr string, err error) {
	w.Helper()
	stdout, stderr, err := w.command(append(args, "--output", "json")...)
	if bad := json.Unmarshal([]byte(stdout), &is); bad != nil {
		w.Fatalf("kops-spot %s printed %q: %v\n%s", strings.Join(args, " "), stdout, bad, stderr)
	}
	return is, stderr, err
}

// succeed runs kops-spot with --yes, which must succeed.
func (w *world) succeed(args ...string) commandResult {
	w.Helper()
	is, stderr, err := w.asJSON(append(args, "--yes")...)
	if err != nil {
		w.Fatalf("kops-spot %q: %v\n%s", args, err, stderr)
	}
	return is
}

// files returns the exported files of a directory by name, without the code, and records them for the search for
// secrets.
func (w *world) files(dir string) map[string]string {
	w.Helper()
	files := map[string]string{}
	for _, entry := range must(os.ReadDir(dir)) {
		if strings.HasSuffix(entry.Name(), ".zip") {
			continue
		}
		files[entry.Name()] = string(must(os.ReadFile(filepath.Join(dir, entry.Name()))))
		outputs.add(files[entry.Name()])
	}
	return files
}

// run returns an onboarding of a cluster in this process, without the cluster part.
func (w *world) run(cluster, instance string, change func(*onboard.Spec)) *onboard.Onboarding {
	w.Helper()
	account := awsadmin.New(w.cfg)
	nodes := []onboard.NodeInstance{{Node: "n", ID: instance, Region: region}}
	g, instances, err := onboard.VerifyCluster(w.Context(), account, nodes, onboard.ClusterRef{Cluster: cluster, Context: "c"})
	if err == nil {
		g.NodeRoles, err = onboard.NodeRoles(w.Context(), account, nodes, instances)
	}
	if err != nil {
		w.Fatal(err)
	}
	r := &onboard.Onboarding{AWS: account, Spec: onboard.Spec{Environment: g, Permissions: onboard.Least, Store: onboard.InSecretsManager{Cluster: cluster}}}
	if change != nil {
		change(&r.Spec)
	}
	return r
}

// applyPlan plans and applies.
func (w *world) applyPlan(r *onboard.Onboarding, plan func(context.Context) (onboard.Plan, error)) error {
	p, err := plan(w.Context())
	if err != nil {
		return err
	}
	return r.Apply(w.Context(), p)
}

// onboard onboards a cluster.
func (w *world) onboard(cluster, instance string, change func(*onboard.Spec)) *onboard.Onboarding {
	w.Helper()
	r := w.run(cluster, instance, change)
	try(w.applyPlan(r, r.Plan))
	return r
}

func (w *world) offboard(cluster, instance string) {
	w.Helper()
	r := w.run(cluster, instance, nil)
	try(w.applyPlan(r, r.PlanRemoval))
}

// stored returns the access key in a cluster's secret.
func (w *world) stored(cluster string) (k awsadmin.NewKey) {
	w.Helper()
	out := must(w.secrets().GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("cast-kops/" + cluster + "/access-key")}))
	try(json.Unmarshal([]byte(*out.SecretString), &k))
	return k
}

func try(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
