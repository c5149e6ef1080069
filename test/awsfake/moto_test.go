package awsfake_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// TestContractOnMoto runs the contract on somebody else's AWS, which knows nothing of ours: what holds on both is not
// one mistake made twice. Where moto is further from AWS than the model, it is on the list, and held to that.
func TestContractOnMoto(t *testing.T) {
	t.Parallel()
	w := motoWorld(t, startMoto(t))
	w.deviates = map[string]error{
		"code for a malformed id":       nil, // says NotFound
		"tag on an unknown instance":    nil,
		"tag that only AWS may set":     nil,
		"detach of a non-member":        nil,
		"detach of an unknown instance": nil,
		"detach from an unknown group":  errAgain, // breaks, with HTTP status 500
		"detach again":                  nil,
		"detach long after":             nil,
		"a suspended group launches":    nil,

		"a terminated instance keeps its name and address": nil,
		"a hook's global timeout is always 48 hours":       nil,
		"no activity is told of":                           nil, // the list is always empty
		"launches of an unknown group":                     nil,

		// It has no operation for a heartbeat or a completion, and breaks with HTTP status 500.
		"no hook holds an instance":         nil,
		"heartbeat":                         errAgain,
		"heartbeat of an unknown token":     errAgain,
		"heartbeat of an unknown hook":      errAgain,
		"heartbeat of an unknown instance":  errAgain,
		"heartbeat of an unknown group":     errAgain,
		"heartbeat after the completion":    errAgain,
		"completion":                        errAgain,
		"completion of an unknown token":    errAgain,
		"completion of an unknown hook":     errAgain,
		"completion of an unknown instance": errAgain,
		"completion of an unknown group":    errAgain,
		"completion again":                  errAgain,
	}
	contract(t, w)
}

// startMoto runs a moto server of its own and returns its URL.
func startMoto(t *testing.T) string {
	t.Helper()
	moto, err := testenv.StartMoto(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := moto.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("moto's log:\n%s", moto.Log())
		}
	})
	return moto.URL
}

// motoWorld is the world of the contract in a moto server, made with the SDK.
func motoWorld(t *testing.T, url string) *world {
	t.Helper()
	ctx, cfg := t.Context(), config(url, "AKIDFAKE")
	e, s := ec2.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	made := time.Now()
	run := func(onSpot, hibernates bool) string {
		t.Helper()
		in := &ec2.RunInstancesInput{ImageId: aws.String("ami-12c6146b"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
		if hibernates {
			in.HibernationOptions = &ec2types.HibernationOptionsRequest{Configured: aws.Bool(true)}
		}
		if onSpot {
			in.InstanceMarketOptions = &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}
		}
		out, err := e.RunInstances(ctx, in)
		must(err)
		return *out.Instances[0].InstanceId
	}

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

	w := &world{cloud: awscloud.New(cfg), made: made,
		spotted: run(true, false), plain: run(false, false), standby: run(false, false), loner: run(false, false), sleeper: run(false, true)}
	// Attached rather than launched: moto's groups launch no Spot instances.
	_, err = s.AttachInstances(ctx, &autoscaling.AttachInstancesInput{AutoScalingGroupName: aws.String(nodes), InstanceIds: []string{w.spotted, w.plain, w.standby}})
	must(err)
	// On AWS the group's tags come with that; were it so here, the detour could go.
	if i, err := w.cloud.Instance(ctx, w.spotted); err != nil || i.Tags[spot.TagCluster] != "" {
		t.Errorf("an attached instance has its group's tags, or cannot be read: %+v, %v", i, err)
	}
	_, err = e.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{w.spotted, w.plain, w.standby},
		Tags:      []ec2types.Tag{{Key: aws.String(spot.TagCluster), Value: aws.String(cluster)}},
	})
	must(err)
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
	if got, want := slices.Sorted(maps.Keys(w.members())), slices.Sorted(slices.Values([]string{w.spotted, w.plain, w.standby})); !slices.Equal(got, want) {
		t.Fatalf("members %v, want %v", got, want)
	}
	return w
}
