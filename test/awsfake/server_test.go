package awsfake_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// A program that is given the environment, and nothing else, takes the fake for AWS.
func TestEnv(t *testing.T) {
	a, w := model()
	for _, kv := range serve(t, a).Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	cfg, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := awscloud.New(cfg).Membership(t.Context(), w.plain); err != nil || m.Group != nodes {
		t.Errorf("%+v, %v", m, err)
	}
	if len(a.Calls()) != 3 {
		t.Errorf("calls %+v", a.Calls())
	}
}

// What the fake does not know is loud.
func TestUnknownIsLoud(t *testing.T) {
	a, w := model()
	cfg := config(serve(t, a).URL(), "AKIDFAKE")
	e := ec2.NewFromConfig(cfg)
	s := autoscaling.NewFromConfig(cfg)
	ctx := t.Context()
	for name, tt := range map[string]struct {
		call func() error
		code string
	}{
		"action of EC2":          {func() error { _, err := e.DescribeVolumes(ctx, nil); return err }, "InvalidAction"},
		"action of Auto Scaling": {func() error { _, err := s.DescribePolicies(ctx, nil); return err }, "InvalidAction"},
		"filter":                 {func() error { _, err := e.DescribeInstances(ctx, filtered()); return err }, "UnknownParameter"},
		"dry run":                {func() error { _, err := e.CreateTags(ctx, dryRun(w.plain)); return err }, "UnknownParameter"},
		"groups' filter":         {func() error { _, err := s.DescribeAutoScalingGroups(ctx, some()); return err }, "UnknownParameter"},
		"activities' filter": {func() error {
			_, err := s.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{Filters: some().Filters})
			return err
		}, "UnknownParameter"},
		"no signature":           {func() error { return post(cfg, "DescribeInstances", "") }, "MissingAuthenticationToken"},
		"other service's action": {func() error { return post(cfg, "DescribeInstances", "autoscaling") }, "InvalidAction"},
	} {
		err := tt.call()
		if err == nil || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if calls := a.Calls(); len(calls) != 0 {
		t.Errorf("the account was asked: %+v", calls)
	}
}

func filtered() *ec2.DescribeInstancesInput {
	return &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{{Name: aws.String("x"), Values: []string{"y"}}}}
}

func dryRun(id string) *ec2.CreateTagsInput {
	return &ec2.CreateTagsInput{DryRun: aws.Bool(true), Resources: []string{id}, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("")}}}
}

func some() *autoscaling.DescribeAutoScalingGroupsInput {
	return &autoscaling.DescribeAutoScalingGroupsInput{Filters: []scaling.Filter{{Name: aws.String("tag:x"), Values: []string{"y"}}}}
}

// post makes a call, signed for a service or not at all, and returns the answer as an error.
func post(cfg aws.Config, action, service string) error {
	r, err := http.NewRequest("POST", *cfg.BaseEndpoint, strings.NewReader("Action="+action))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if service != "" {
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDFAKE/20261123/"+region+"/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return errors.Join(errors.New(answer.Status+" "+string(body)), err)
}

// A user whose credentials or policy are not right is told what to do.
func TestRefusals(t *testing.T) {
	a, w := model()
	s := serve(t, a)
	for name, tt := range map[string]struct {
		key  string
		fail func()
		call string
		want string
	}{
		"unknown key, EC2":          {"AKIDUNKNOWN", func() {}, "Tag", "(AuthFailure); renew those this runs with"},
		"unknown key, Auto Scaling": {"AKIDUNKNOWN", func() {}, "Detach", "(InvalidClientTokenId); renew those this runs with"},
		"expired, EC2":              {"AKIDEXPIRED", func() {}, "Instance", "(RequestExpired); renew those this runs with"},
		"expired, Auto Scaling":     {"AKIDEXPIRED", func() {}, "Membership", "(ExpiredToken); renew those this runs with"},
		"denied, EC2":               {"AKIDFAKE", func() { a.Fail("CreateTags", 1, sim.Denied()) }, "Tag", "allow ec2:CreateTags on instance " + w.plain + " to " + sim.Role},
		"denied, Auto Scaling":      {"AKIDFAKE", func() { a.Fail("DetachInstances", 1, sim.Denied()) }, "Detach", "allow autoscaling:DetachInstances on Auto Scaling group " + nodes + " to " + sim.Role},
	} {
		s.RefuseAccessKey("AKIDUNKNOWN", sim.BadCredentials())
		s.RefuseAccessKey("AKIDEXPIRED", sim.ExpiredCredentials())
		tt.fail()
		w.cloud = awscloud.New(config(s.URL(), tt.key))
		err := methods(w)[tt.call](t.Context())
		if !errors.Is(err, spot.ErrFinal) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error\n%v\nwant\n%s", name, err, tt.want)
		}
		s.AcceptAccessKey("AKIDUNKNOWN")
		s.AcceptAccessKey("AKIDEXPIRED")
		if err := methods(w)["Instance"](t.Context()); err != nil {
			t.Errorf("%s: accepted again: %v", name, err)
		}
	}
}

// A group is described in full, for those who look at more than the handler does.
func TestDescribeGroup(t *testing.T) {
	a, w := model()
	s := autoscaling.NewFromConfig(config(serve(t, a).URL(), "AKIDFAKE"))
	out, err := s.DescribeAutoScalingGroups(t.Context(), nil)
	if err != nil || len(out.AutoScalingGroups) != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	g := out.AutoScalingGroups[0]
	if *g.MinSize != 2 || *g.MaxSize != 3 || *g.DesiredCapacity != 2 || len(g.Instances) != 3 || !slices.Equal(g.AvailabilityZones, []string{region + "a"}) {
		t.Errorf("group %+v", g)
	}
	if m := g.Instances[0]; *m.InstanceId != w.spotted || m.LifecycleState != "InService" || *m.AvailabilityZone != region+"a" {
		t.Errorf("member %+v", m)
	}
	hooks, err := s.DescribeLifecycleHooks(t.Context(), &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String(nodes)})
	if err != nil || len(hooks.LifecycleHooks) != 2 || *hooks.LifecycleHooks[1].HeartbeatTimeout != 60 || *hooks.LifecycleHooks[1].GlobalTimeout != 6000 {
		t.Errorf("hooks %+v, %v", hooks, err)
	}
}
