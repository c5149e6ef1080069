// Package install has the real binary deploy the function, check it and take it away: on moto, with a SAM template transformed
// as CloudFormation does, with EventBridge and Lambda as far as the bridge plays them, and on a real API server.
package install

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/bridge"
	"github.com/castai/kops-spot/test/cutoff"
	"github.com/castai/kops-spot/test/lambdalocal"
	"github.com/castai/kops-spot/test/samproxy"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster = "prod.example.com"
	region  = "eu-west-1"
	account = "123456789012"
)

// world is an account, a cluster, and an operator who is logged in to both.
var world struct {
	cp     *testenv.ControlPlane
	moto   *testenv.Moto
	sam    *samproxy.Proxy
	bridge *bridge.Bridge
	cut    *cutoff.Proxy
	aws    aws.Config // past what is counted
	bin    string
	code   string // the file with the function's code
	node   string // an instance of the cluster, and its node
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "install")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false"); err != nil {
		return 1, err
	}
	bootstrap, err := testenv.BuildBootstrap(ctx) // and with it the command line
	if err != nil {
		return 1, err
	}
	world.bin = filepath.Join(filepath.Dir(bootstrap), "kops-spot")
	world.code = filepath.Join(dir, "kops-spot.zip")
	if err := pack(bootstrap, world.code); err != nil {
		return 1, err
	}
	if world.cp, err = testenv.StartControlPlane(ctx, testenv.Options{Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, world.cp.Stop()) }()
	if world.moto, err = testenv.StartMoto(ctx, dir); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, world.moto.Stop()) }()
	if world.sam, err = samproxy.Start(world.moto.URL); err != nil {
		return 1, err
	}
	defer world.sam.Close()
	world.bridge, err = bridge.Start(ctx, bridge.Options{Moto: world.sam.URL, Region: region, Functions: []lambdalocal.Function{
		{Name: names.FunctionName(cluster), Bootstrap: bootstrap, Environment: map[string]string{
			"AWS_ENDPOINT_URL": world.moto.URL, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}}}})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, world.bridge.Close()) }()
	if world.cut, err = cutoff.Start(world.bridge.URL, cutoff.Options{}); err != nil {
		return 1, err
	}
	defer world.cut.Close()
	world.aws = aws.Config{Region: region, BaseEndpoint: &world.bridge.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
	if world.node, err = newNode(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// pack makes a zip of the bootstrap, as make dist does.
func pack(bootstrap, to string) error {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create("bootstrap")
	if err != nil {
		return err
	}
	program, err := os.Open(bootstrap)
	if err != nil {
		return err
	}
	defer program.Close()
	if _, err := io.Copy(f, program); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, b.Bytes(), 0o600)
}

// newNode makes a Spot instance of the cluster and its node, and returns the instance's id, which is the node's name too.
func newNode(ctx context.Context) (string, error) {
	client := ec2.NewFromConfig(world.aws)
	vpc, err := client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16")})
	if err != nil {
		return "", err
	}
	subnet, err := client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: aws.String("10.0.0.0/24")})
	if err != nil {
		return "", err
	}
	out, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		SubnetId: subnet.Subnet.SubnetId, InstanceMarketOptions: &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot},
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance,
			Tags: []ec2types.Tag{{Key: aws.String(spot.TagCluster), Value: aws.String(cluster)}}}}})
	if err != nil {
		return "", err
	}
	i := out.Instances[0]
	return *i.InstanceId, world.cp.CreateNodes(ctx, testenv.Node{Name: *i.InstanceId, InstanceID: *i.InstanceId, Zone: region + "a", PrivateIP: *i.PrivateIpAddress})
}

// kopsSpot runs the command line as an operator would.
func kopsSpot(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, world.bin, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "KUBECONFIG=" + world.cp.Kubeconfig(), "KOPS_SPOT_CLUSTER=" + cluster,
		"AWS_ENDPOINT_URL=" + world.cut.URL, "AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		t.Fatalf("kops-spot %q hangs:\n%s%s", args, out.String(), errs.String())
	}
	return out.String(), errs.String(), err
}

// installed are the arguments of an install for the processor of this machine.
func installed(more ...string) []string {
	return slices.Concat([]string{"install", "--code", world.code, "--set", "Architecture=x86_64"}, more)
}

// exported are the files that an install exports, by their names.
func exported(t *testing.T, more ...string) (files map[string]string, stderr string) {
	t.Helper()
	dir := t.TempDir()
	_, stderr = must(t, installed(append(more, "--export", dir)...)...)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(text)
	}
	return files, stderr
}

// must runs the command line and demands that it succeeds.
func must(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := kopsSpot(t, args...)
	if err != nil {
		t.Fatalf("kops-spot %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout, stderr
}
