// Package rehearse has kops-spot send rehearsals through EventBridge, as far as moto and the bridge play it, to the real
// function on a real API server.
package rehearse

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/castai/kops-spot/deploy"
	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/bridge"
	"github.com/castai/kops-spot/test/lambdalocal"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster = "prod.example.com"
	region  = "us-east-1"

	// acting is the function, and the bus, of those that are to act.
	acting = "cast-acting"

	// failing is the function, and the bus, of those whose log-in the cluster does not take.
	failing = "cast-failing"
)

// stage is what all tests share.
var stage struct {
	cp     *testenv.ControlPlane
	bridge *bridge.Bridge
	aws    aws.Config
	bin    string
	token  string
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rehearse:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "rehearse")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bootstrap, err := testenv.BuildBootstrap(ctx)
	if err != nil {
		return 1, err
	}
	stage.bin = filepath.Join(filepath.Dir(bootstrap), "kops-spot")
	if stage.cp, err = testenv.StartControlPlane(ctx, testenv.Options{Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stage.cp.Stop()) }()
	moto, err := testenv.StartMoto(ctx, dir)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, moto.Stop()) }()
	if err := startFunctions(ctx, dir, bootstrap, moto.URL); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stage.bridge.Close()) }()
	return m.Run(), nil
}

// startFunctions makes two functions with their rules: the cluster's on the default bus, which only plans rehearsals, and
// one on a bus of its own, which acts.
func startFunctions(ctx context.Context, dir, bootstrap, moto string) error {
	if err := stage.cp.Apply(ctx, deploy.RBAC); err != nil {
		return err
	}
	var err error
	if stage.token, err = stage.cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", time.Hour); err != nil {
		return err
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(stage.token), 0o600); err != nil {
		return err
	}
	env := func(rehearsals string) map[string]string {
		return map[string]string{
			"KOPS_SPOT_CLUSTER": cluster, "KOPS_SPOT_MODE": "act", "KOPS_SPOT_LOGIN": "file:" + token, "KOPS_SPOT_REHEARSALS": rehearsals,
			"KOPS_SPOT_SERVER": stage.cp.AdminConfig().Host, "KOPS_SPOT_CA": base64.StdEncoding.EncodeToString(stage.cp.AdminConfig().CAData),
			"KOPS_SPOT_TLS_SERVER_NAME": "localhost",
			"AWS_ENDPOINT_URL":          moto, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
		}
	}
	outdated := env("preview")
	outdated["KOPS_SPOT_LOGIN"] = "file:" + filepath.Join(dir, "outdated")
	if err := os.WriteFile(filepath.Join(dir, "outdated"), []byte("eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln"), 0o600); err != nil {
		return err
	}
	planning := names.FunctionName(cluster)
	stage.bridge, err = bridge.Start(ctx, bridge.Options{Moto: moto, Region: region, Functions: []lambdalocal.Function{
		{Name: planning, Bootstrap: bootstrap, Environment: env("preview")},
		{Name: acting, Bootstrap: bootstrap, Environment: env("act")},
		{Name: failing, Bootstrap: bootstrap, Environment: outdated},
	}})
	if err != nil {
		return err
	}
	stage.aws, err = config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithBaseEndpoint(stage.bridge.URL),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
	if err != nil {
		return err
	}
	_, err = iam.NewFromConfig(stage.aws).CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String(names.FunctionRole),
		AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[]}`)})
	if err != nil {
		return err
	}
	for _, bus := range []string{acting, failing, "silent"} {
		if _, err := eventbridge.NewFromConfig(stage.aws).CreateEventBus(ctx, &eventbridge.CreateEventBusInput{Name: &bus}); err != nil {
			return err
		}
	}
	if err := errors.Join(link(ctx, planning, "default"), link(ctx, acting, acting), link(ctx, failing, failing)); err != nil {
		return err
	}
	return linkBroken(ctx, planning)
}

// link makes a function, and a rule on a bus that has it invoked for rehearsals.
func link(ctx context.Context, function, bus string) error {
	var code bytes.Buffer
	z := zip.NewWriter(&code)
	if _, err := z.Create("bootstrap"); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	functions, events := lambda.NewFromConfig(stage.aws), eventbridge.NewFromConfig(stage.aws)
	made, err := functions.CreateFunction(ctx, &lambda.CreateFunctionInput{FunctionName: &function, Runtime: lambdatypes.RuntimeProvidedal2023,
		Handler: aws.String("bootstrap"), Role: aws.String("arn:aws:iam::123456789012:role/" + names.FunctionRole),
		Code: &lambdatypes.FunctionCode{ZipFile: code.Bytes()}, Timeout: aws.Int32(150), MemorySize: aws.Int32(256)})
	if err != nil {
		return err
	}
	_, err = functions.PutFunctionEventInvokeConfig(ctx, &lambda.PutFunctionEventInvokeConfigInput{FunctionName: &function,
		MaximumRetryAttempts: aws.Int32(0)})
	if err != nil {
		return err
	}
	rule, err := events.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("rehearsals"), EventBusName: &bus,
		EventPattern: aws.String(`{"source": ["kops-spot.rehearsal"]}`)})
	if err != nil {
		return err
	}
	_, err = functions.AddPermission(ctx, &lambda.AddPermissionInput{FunctionName: &function, StatementId: aws.String("rehearsals"),
		Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("events.amazonaws.com"), SourceArn: rule.RuleArn})
	if err != nil {
		return err
	}
	_, err = events.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("rehearsals"), EventBusName: &bus,
		Targets: []types.Target{{Id: aws.String("function"), Arn: made.FunctionArn}}})
	return err
}

// linkBroken makes a rule on the bus "silent" that would have a function invoked if it were not disabled.
func linkBroken(ctx context.Context, function string) error {
	events := eventbridge.NewFromConfig(stage.aws)
	_, err := events.PutRule(ctx, &eventbridge.PutRuleInput{Name: aws.String("rehearsals"), EventBusName: aws.String("silent"),
		EventPattern: aws.String(`{"source": ["kops-spot.rehearsal"]}`), State: types.RuleStateDisabled})
	if err != nil {
		return err
	}
	_, err = events.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: aws.String("rehearsals"), EventBusName: aws.String("silent"),
		Targets: []types.Target{{Id: aws.String("function"), Arn: aws.String("arn:aws:lambda:" + region + ":123456789012:function:" + function)}}})
	return err
}

// newNode makes an instance of the cluster and its node, and returns the instance's id, which is the node's name too.
func newNode(t *testing.T, of string) string {
	t.Helper()
	out, err := ec2.NewFromConfig(stage.aws).RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String("ami-12c6146b"),
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1), TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: aws.String(spot.TagCluster), Value: &of}}}}})
	if err != nil {
		t.Fatal(err)
	}
	i := out.Instances[0]
	if err := stage.cp.CreateNodes(t.Context(), testenv.Node{Name: *i.InstanceId, InstanceID: *i.InstanceId, Zone: region + "a", PrivateIP: *i.PrivateIpAddress}); err != nil {
		t.Fatal(err)
	}
	return *i.InstanceId
}
