package awsfake_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
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
	e, ctx := ec2.NewFromConfig(config(serve(t, a).URL(), "AKIDFAKE")), t.Context()
	for code, call := range map[string]func() error{
		"InvalidAction": func() error { _, err := e.DescribeVolumes(ctx, nil); return err },
		`UnknownParameter: The fake does not know the filter "x"`: func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{
				Filters: []ec2types.Filter{{Name: aws.String("x"), Values: []string{"y"}}}})
			return err
		},
		"UnknownParameter: The fake does not know the parameters DryRun": func() error {
			_, err := e.CreateTags(ctx, &ec2.CreateTagsInput{DryRun: aws.Bool(true), Resources: []string{w.plain},
				Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("")}}})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("%v, want %s", err, code)
		}
	}
	if calls := a.Calls(); len(calls) != 0 {
		t.Errorf("the account was asked: %+v", calls)
	}
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
