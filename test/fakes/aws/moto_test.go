package aws_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// TestContractOnMoto runs the contract on an independent implementation, so that both do not share a mistake. Known
// deviations of moto are listed, and must exist.
func TestContractOnMoto(t *testing.T) {
	moto, err := testenv.StartMoto(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer moto.Stop()
	cfg := kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: &moto.URL,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
	w := motoWorld(t, cfg)
	w.deviates = map[string]bool{
		"tag on an unknown instance": true,
		"detach of a non-member":     true,
		"detach again":               true,
		"detach long after":          true,

		"a terminated instance keeps its name and address": true,
		"a hook's global timeout is always 48 hours":       true,
	}
	contract(t, w)
	if err := kopsaws.New(cfg).Publish(t.Context(), notification); err != nil {
		t.Error(err)
	}
}

// motoWorld creates the contract's world in a moto server with the SDK. moto has no heartbeats or completions, and
// hooks do not hold instances.
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
	w := &world{cloud: kopsaws.New(cfg), made: time.Now(),
		spotted: run(ec2.RunInstancesInput{InstanceMarketOptions: &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}}),
		plain:   run(ec2.RunInstancesInput{}), standby: run(ec2.RunInstancesInput{}),
		loner:   run(ec2.RunInstancesInput{}),
		sleeper: run(ec2.RunInstancesInput{HibernationOptions: &ec2types.HibernationOptionsRequest{Configured: aws.Bool(true)}})}

	_, err := e.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String(nodes),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-12c6146b"),
			InstanceType: "t3.medium"},
	})
	must(err)
	_, err = s.CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String(nodes), MinSize: aws.Int32(0), MaxSize: aws.Int32(3),
		DesiredCapacity:   aws.Int32(0),
		AvailabilityZones: []string{region + "a"},
		LaunchTemplate:    &scaling.LaunchTemplateSpecification{LaunchTemplateName: aws.String(nodes)},
		Tags: []scaling.Tag{{
			Key: aws.String(spot.TagCluster), Value: aws.String(cluster), PropagateAtLaunch: aws.Bool(true),
			ResourceId: aws.String(nodes), ResourceType: aws.String("auto-scaling-group"),
		}},
	})
	must(err)
	for name, transition := range map[string]string{"start": "autoscaling:EC2_INSTANCE_LAUNCHING",
		"drain": "autoscaling:EC2_INSTANCE_TERMINATING"} {
		_, err = s.PutLifecycleHook(ctx, &autoscaling.PutLifecycleHookInput{
			AutoScalingGroupName: aws.String(nodes), LifecycleHookName: aws.String(name),
			LifecycleTransition: aws.String(transition),
			HeartbeatTimeout:    aws.Int32(60),
		})
		must(err)
	}
	// Attached rather than launched: moto's groups do not launch Spot instances. On AWS, the group's tags would be
	// added.
	members := []string{w.spotted, w.plain, w.standby}
	_, err = s.AttachInstances(ctx, &autoscaling.AttachInstancesInput{AutoScalingGroupName: aws.String(nodes),
		InstanceIds: members})
	must(err)
	must(w.cloud.Tag(ctx, w.spotted, map[string]string{spot.TagCluster: cluster}))
	_, err = s.EnterStandby(ctx, &autoscaling.EnterStandbyInput{
		AutoScalingGroupName: aws.String(nodes), InstanceIds: []string{w.standby},
		ShouldDecrementDesiredCapacity: aws.Bool(true)})
	must(err)

	describe := func() scaling.AutoScalingGroup {
		t.Helper()
		out, err := s.DescribeAutoScalingGroups(ctx,
			&autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{nodes}})
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
			_, err := s.SuspendProcesses(ctx,
				&autoscaling.SuspendProcessesInput{AutoScalingGroupName: aws.String(nodes),
					ScalingProcesses: processes})
			must(err)
		}
	}
	w.terminate = func(id string) {
		_, err := e.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		must(err)
	}
	return w
}
