package awsfake_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// TestMoto asks somebody else's AWS, which knows nothing of ours: what holds on both is not one mistake made twice.
func TestMoto(t *testing.T) {
	moto, err := testenv.StartMoto(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer moto.Stop()
	cfg := aws.Config{Region: region, BaseEndpoint: &moto.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")}
	t.Run("contract", func(t *testing.T) { testContractOnMoto(t, cfg) })
	t.Run("log-in", func(t *testing.T) { testLoginCalls(t, cfg) })
	if t.Failed() {
		t.Logf("moto's log:\n%s", moto.Log())
	}
}

// Where moto is further from AWS than the model, it is on the list, and held to that.
func testContractOnMoto(t *testing.T, cfg aws.Config) {
	w := motoWorld(t, cfg)
	w.deviates = map[string]error{
		"tag on an unknown instance": nil,
		"detach of a non-member":     nil,
		"detach again":               nil,
		"detach long after":          nil,
		"a suspended group launches": nil,

		"a terminated instance keeps its name and address": nil,
		"a hook's global timeout is always 48 hours":       nil,
		"no activity is told of":                           nil, // the list is always empty

		// It has no operation for a heartbeat or a completion, and breaks with HTTP status 500.
		"no hook holds an instance":      nil,
		"heartbeat":                      errAgain,
		"heartbeat of an unknown token":  errAgain,
		"heartbeat after the completion": errAgain,
		"completion":                     errAgain,
		"completion of an unknown token": errAgain,
		"completion again":               errAgain,
	}
	contract(t, w)
}

// motoWorld is the world of the contract in a moto server, made with the SDK.
func motoWorld(t *testing.T, cfg aws.Config) *world {
	t.Helper()
	ctx, e, s := t.Context(), ec2.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(in ec2.RunInstancesInput) string {
		t.Helper()
		in.ImageId, in.MinCount, in.MaxCount = aws.String("ami-12c6146b"), aws.Int32(1), aws.Int32(1)
		out, err := e.RunInstances(ctx, &in)
		must(err)
		return *out.Instances[0].InstanceId
	}
	w := &world{cloud: awscloud.New(cfg), made: time.Now(),
		spotted: run(ec2.RunInstancesInput{InstanceMarketOptions: &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}}),
		plain:   run(ec2.RunInstancesInput{}), standby: run(ec2.RunInstancesInput{}), loner: run(ec2.RunInstancesInput{}),
		sleeper: run(ec2.RunInstancesInput{HibernationOptions: &ec2types.HibernationOptionsRequest{Configured: aws.Bool(true)}})}

	_, err := e.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String(nodes),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-12c6146b"), InstanceType: "t3.medium"},
	})
	must(err)
	_, err = s.CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String(nodes), MinSize: aws.Int32(0), MaxSize: aws.Int32(3), DesiredCapacity: aws.Int32(0),
		AvailabilityZones: []string{region + "a"},
		LaunchTemplate:    &scaling.LaunchTemplateSpecification{LaunchTemplateName: aws.String(nodes)},
		Tags: []scaling.Tag{{
			Key: aws.String(spot.TagCluster), Value: aws.String(cluster), PropagateAtLaunch: aws.Bool(true),
			ResourceId: aws.String(nodes), ResourceType: aws.String("auto-scaling-group"),
		}},
	})
	must(err)
	for name, transition := range map[string]string{"start": "autoscaling:EC2_INSTANCE_LAUNCHING", "drain": "autoscaling:EC2_INSTANCE_TERMINATING"} {
		_, err = s.PutLifecycleHook(ctx, &autoscaling.PutLifecycleHookInput{
			AutoScalingGroupName: aws.String(nodes), LifecycleHookName: aws.String(name), LifecycleTransition: aws.String(transition),
			HeartbeatTimeout: aws.Int32(60),
		})
		must(err)
	}
	// Attached rather than launched: moto's groups launch no Spot instances. On AWS the group's tags come with that.
	members := []string{w.spotted, w.plain, w.standby}
	_, err = s.AttachInstances(ctx, &autoscaling.AttachInstancesInput{AutoScalingGroupName: aws.String(nodes), InstanceIds: members})
	must(err)
	must(w.cloud.Tag(ctx, w.spotted, map[string]string{spot.TagCluster: cluster}))
	_, err = s.EnterStandby(ctx, &autoscaling.EnterStandbyInput{
		AutoScalingGroupName: aws.String(nodes), InstanceIds: []string{w.standby}, ShouldDecrementDesiredCapacity: aws.Bool(true)})
	must(err)

	describe := func() scaling.AutoScalingGroup {
		t.Helper()
		out, err := s.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{nodes}})
		must(err)
		return out.AutoScalingGroups[0]
	}
	w.members = func() map[string]string {
		states := map[string]string{}
		for _, i := range describe().Instances {
			states[*i.InstanceId] = string(i.LifecycleState)
		}
		return states
	}
	w.desired = func() int { return int(*describe().DesiredCapacity) }
	w.suspend = func(processes ...string) {
		_, err := s.ResumeProcesses(ctx, &autoscaling.ResumeProcessesInput{AutoScalingGroupName: aws.String(nodes)})
		must(err)
		if len(processes) > 0 {
			_, err := s.SuspendProcesses(ctx, &autoscaling.SuspendProcessesInput{AutoScalingGroupName: aws.String(nodes), ScalingProcesses: processes})
			must(err)
		}
	}
	w.terminate = func(id string) {
		_, err := e.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		must(err)
	}
	// There is no way to end a member so that a hook holds it, so this action is made up.
	w.end = func(member string) spot.Action {
		return spot.Action{Group: nodes, Hook: "drain", Token: "11111111-1111-1111-1111-111111111111", Instance: member}
	}
	return w
}

// testLoginCalls holds the calls that a log-in needs to AWS's documentation: moto deviates in none of them. (The STS that
// checks signatures and clocks is the test environment's own.)
func testLoginCalls(t *testing.T, cfg aws.Config) {
	cloud, ctx := awscloud.New(cfg), t.Context()
	secrets, parameters := secretsmanager.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	for name, value := range map[string]string{"text": "a-token", "object": `{"token":"a-token","ca":"a-ca"}`, "broken": `{"token"`} {
		_, err := secrets.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String(value)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/" + name), Value: aws.String(value), Type: ssmtypes.ParameterTypeSecureString})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := secrets.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String("binary"), SecretBinary: []byte("a-token")}); err != nil {
		t.Fatal(err)
	}
	secret := func(name, key string) (string, error) { return cloud.Secret(ctx, name, key) }
	parameter := func(name, key string) (string, error) { return cloud.Parameter(ctx, "/"+name, key) }
	for _, c := range []struct {
		from      func(name, key string) (string, error)
		name, key string
		want      string // empty for an error that another try cannot mend
	}{
		{secret, "text", "token", "a-token"},
		{secret, "object", "token", "a-token"},
		{secret, "object", "ca", "a-ca"},
		{secret, "object", "other", ""},
		{secret, "broken", "token", ""},
		{secret, "binary", "token", ""},
		{secret, "nowhere", "token", ""},
		{parameter, "text", "token", "a-token"},
		{parameter, "object", "ca", "a-ca"},
		{parameter, "broken", "token", ""},
		{parameter, "nowhere", "token", ""},
	} {
		got, err := c.from(c.name, c.key)
		if got != c.want || errors.Is(err, spot.ErrFinal) != (c.want == "") || errors.Is(err, spot.ErrNotFound) {
			t.Errorf("%s, %s: got %q, %v", c.name, c.key, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "a-token") || !strings.Contains(err.Error(), c.name)) {
			t.Errorf("%s: the error holds the secret, or does not name it: %v", c.name, err)
		}
	}
	if arn, err := cloud.CallerARN(ctx); err != nil || !strings.HasPrefix(arn, "arn:aws:sts::") {
		t.Errorf("got %q, %v", arn, err)
	}
}
