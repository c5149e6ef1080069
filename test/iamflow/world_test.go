// Package iamflow proves what onboarding and offboarding do in an account: on moto, with every call counted and every run
// broken off at each of its writes.
package iamflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/castai/kops-spot/internal/iamcloud"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/test/cutoff"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	clusterA = "prod.example.com"
	clusterB = "staging.example.com"
	region   = "eu-west-1"
)

var shared struct {
	motos    []*testenv.Moto // one keeps one processor busy
	cp       *testenv.ControlPlane
	bin      string
	accounts atomic.Int64
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "iamflow:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx := context.Background()
	for name, value := range map[string]string{"MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"} {
		if err := os.Setenv(name, value); err != nil {
			return 1, err
		}
	}
	bootstrap, err := testenv.BuildBootstrap(ctx) // and with it the command line
	if err != nil {
		return 1, err
	}
	shared.bin = filepath.Join(filepath.Dir(bootstrap), "kops-spot")
	dir, err := os.MkdirTemp("", "iamflow-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	defer func() {
		for _, moto := range shared.motos {
			err = errors.Join(err, moto.Stop())
		}
	}()
	for i := range 2 {
		own := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			return 1, err
		}
		moto, err := testenv.StartMoto(ctx, own)
		if err != nil {
			return 1, err
		}
		shared.motos = append(shared.motos, moto)
	}
	if shared.cp, err = testenv.StartControlPlane(ctx, testenv.Options{Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.cp.Stop()) }()
	code = m.Run()
	if err := leaked(); code == 0 && err != nil {
		return 1, err
	}
	return code, nil
}

// world is an account of its own, behind a proxy of its own.
type world struct {
	*testing.T
	*cutoff.Proxy
	account string
	cfg     aws.Config // through the proxy
	direct  aws.Config // past it: what tests arrange and look at is not counted
}

func newWorld(t *testing.T) *world {
	t.Helper()
	number := shared.accounts.Add(1)
	moto := &shared.motos[number%int64(len(shared.motos))].URL
	p := must(cutoff.Start(*moto, cutoff.Options{Asked: noteStored, Answered: noteSecrets}))
	t.Cleanup(p.Close)
	w := &world{T: t, Proxy: p, account: fmt.Sprintf("%012d", 200000000000+number)}
	root := aws.Config{Region: region, BaseEndpoint: moto, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
	out, err := sts.NewFromConfig(root).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::" + w.account + ":role/administrator"), RoleSessionName: aws.String("test")})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	w.direct = aws.Config{Region: region, BaseEndpoint: moto,
		Credentials: credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)}
	w.cfg = w.direct.Copy()
	w.cfg.BaseEndpoint = &w.Proxy.URL
	w.cfg.RetryMaxAttempts = 1 // a run that is broken off does not try again
	return w
}

func (w *world) iam() *awsiam.Client { return awsiam.NewFromConfig(w.direct) }

func (w *world) secrets() *secretsmanager.Client { return secretsmanager.NewFromConfig(w.direct) }

// cluster makes a cluster's VPC, its nodes' role and its instances, a worker and a master, and returns the worker's id.
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
		out := must(client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			SubnetId: subnet.Subnet.SubnetId, IamInstanceProfile: &ec2types.IamInstanceProfileSpecification{Name: &profile},
			TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{
				{Key: aws.String("KubernetesCluster"), Value: &name}, {Key: &role, Value: aws.String("1")}}}}}))
		if group == "nodes" {
			worker = *out.Instances[0].InstanceId
		}
	}
	return worker
}

// run prepares an onboarding of a cluster in this process, of which the account alone is looked at.
func (w *world) run(cluster, instance string, change func(*onboard.Want)) *onboard.Run {
	w.Helper()
	account := iamcloud.New(w.cfg)
	g, instances, err := onboard.RightCluster(w.Context(), account, []onboard.Machine{{Node: "n", ID: instance, Region: region}}, onboard.Meant{Cluster: cluster, Context: "c"})
	if err == nil {
		g.NodeRoles, err = onboard.NodeRoles(w.Context(), account, instances)
	}
	if err != nil {
		w.Fatal(err)
	}
	r := &onboard.Run{AWS: account, Want: onboard.Want{Ground: g, Permissions: onboard.Least, Store: onboard.InSecretsManager{Cluster: cluster}}}
	if change != nil {
		change(&r.Want)
	}
	return r
}

type planner func(context.Context) (onboard.Planned, error)

// carryOut makes a plan and applies it.
func (w *world) carryOut(r *onboard.Run, plan planner) error {
	p, err := plan(w.Context())
	if err != nil {
		return err
	}
	return r.Apply(w.Context(), p)
}

// onboard onboards a cluster, and fails the test if that fails.
func (w *world) onboard(cluster, instance string, change func(*onboard.Want)) *onboard.Run {
	w.Helper()
	r := w.run(cluster, instance, change)
	if err := w.carryOut(r, r.Plan); err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) offboard(cluster, instance string) {
	w.Helper()
	r := w.run(cluster, instance, nil)
	if err := w.carryOut(r, r.PlanRemoval); err != nil {
		w.Fatal(err)
	}
}

// stored is the access key in a cluster's secret.
func (w *world) stored(cluster string) (k iamcloud.NewKey) {
	w.Helper()
	out, err := w.secrets().GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("cast-kops/" + cluster + "/access-key")})
	if err != nil {
		w.Fatal(err)
	}
	if err := json.Unmarshal([]byte(*out.SecretString), &k); err != nil {
		w.Fatal(err)
	}
	return k
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
