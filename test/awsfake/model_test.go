package awsfake_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/awsfake"
)

// clouds are the two ways to a sim.AWS: straight, and with the SDK over HTTP. All that follows holds for both.
func clouds() map[string]func(*testing.T, *sim.AWS) spot.Cloud {
	return map[string]func(*testing.T, *sim.AWS) spot.Cloud{
		"sim.Cloud":     func(_ *testing.T, a *sim.AWS) spot.Cloud { return a.Cloud() },
		"awscloud.HTTP": func(t *testing.T, a *sim.AWS) spot.Cloud { return awscloud.New(config(serve(t, a).URL(), "AKIDFAKE")) },
	}
}

func serve(t *testing.T, a *sim.AWS) *awsfake.Server {
	t.Helper()
	s, err := awsfake.Start(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func config(url, key string) aws.Config {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String(url),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: "fake"}, nil
		}),
	}
}

// model is the world of the contract in a sim.AWS.
func model() (*sim.AWS, *world) {
	a := sim.NewAWS(region)
	g := a.AddGroup(sim.Group{
		Name: nodes, Min: 2, Max: 3, Tags: map[string]string{spot.TagCluster: cluster},
		Hooks: []sim.Hook{
			{Name: "start", Transition: sim.HookLaunching, Heartbeat: time.Minute},
			{Name: "drain", Transition: sim.HookTerminating, Heartbeat: time.Minute},
		},
		LaunchTime: 50 * time.Millisecond, DetachTime: 50 * time.Millisecond,
	}, sim.Instance{Spot: true}, sim.Instance{}, sim.Instance{})
	w := &world{
		spotted: g.Members[0].ID,
		plain:   g.Members[1].ID,
		standby: g.Members[2].ID,
		loner:   a.AddInstance(sim.Instance{}).ID,
		members: func() map[string]string {
			states := map[string]string{}
			for _, m := range a.Group(nodes).Members {
				states[m.ID] = m.State
			}
			return states
		},
		desired: func() int { return a.Group(nodes).Desired },
		suspend: func(p ...string) { a.SetGroup(nodes, func(g *sim.Group) { g.Suspended = p }) },
	}
	a.SetGroup(nodes, func(g *sim.Group) { g.Desired = 2 }) // as EnterStandby with decrement leaves it
	a.SetLifecycle(w.standby, "Standby")
	return a, w
}

func TestContract(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, w := model()
			w.cloud = cloud(t, a)
			contract(t, w)
		})
	}
}

// methods are the five calls of spot.Cloud, on the world of the contract.
func methods(w *world) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Instance":   func(ctx context.Context) error { _, err := w.cloud.Instance(ctx, w.plain); return err },
		"Membership": func(ctx context.Context) error { _, err := w.cloud.Membership(ctx, w.plain); return err },
		"Tag":        func(ctx context.Context) error { return w.cloud.Tag(ctx, w.plain, map[string]string{"a": ""}) },
		"Untag":      func(ctx context.Context) error { return w.cloud.Untag(ctx, w.plain, []string{"a"}) },
		"Detach":     func(ctx context.Context) error { return w.cloud.Detach(ctx, w.plain, nodes) },
	}
}

// Every fault of AWS means the same to callers of every method, and costs one call: nobody but the handler tries again.
func TestFaults(t *testing.T) {
	faults := map[string]struct {
		fault sim.Fault
		is    error // nil: worth another try
	}{
		"throttled":           {sim.Throttled(), nil},
		"contention":          {sim.Contention(), nil},
		"activity":            {sim.Answer(sim.AWSError{Code: "ScalingActivityInProgress", Message: "wait", HTTPStatus: 400}), nil},
		"broken":              {sim.Broken(), nil},
		"unreachable":         {sim.Unreachable(), nil},
		"answer lost":         {sim.AnswerLost(), nil},
		"denied":              {sim.Denied(), spot.ErrFinal},
		"bad credentials":     {sim.BadCredentials(), spot.ErrFinal},
		"expired credentials": {sim.ExpiredCredentials(), spot.ErrFinal},
	}
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, f := range faults {
				a, w := model()
				w.cloud = cloud(t, a)
				for method, call := range methods(w) {
					a.Heal()
					before := len(a.Calls())
					a.Fail(sim.AnyOperation, 1, f.fault)
					err := call(t.Context())
					if err == nil || errors.Is(err, spot.ErrFinal) != (f.is != nil) || errors.Is(err, spot.ErrNotFound) {
						t.Errorf("%s, %s: error %v", what, method, err)
					}
					if calls := a.Calls()[before:]; len(calls) != 1 {
						t.Errorf("%s, %s: calls %+v", what, method, calls)
					}
				}
			}
		})
	}
}

// A detach whose answer was lost has happened; asking again says so, and so does the membership.
func TestDetachAnswerLost(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			a.SetGroup(nodes, func(g *sim.Group) { g.DetachTime = time.Hour })
			w.cloud = cloud(t, a)
			a.Fail("DetachInstances", 1, sim.AnswerLost())
			if err := w.cloud.Detach(t.Context(), w.plain, nodes); err == nil || errors.Is(err, spot.ErrFinal) {
				t.Errorf("lost: %v", err)
			}
			if err := w.cloud.Detach(t.Context(), w.plain, nodes); !errors.Is(err, spot.ErrFinal) || !strings.Contains(err.Error(), "is not in InService or Standby") {
				t.Errorf("again: %v", err)
			}
			if m, err := w.cloud.Membership(t.Context(), w.plain); err != nil || m.LifecycleState != "Detaching" {
				t.Errorf("membership %+v, %v", m, err)
			}
		})
	}
}

// A group that cannot be read is no membership; hooks that cannot be are not "no hooks", but no reason to give the rest up.
func TestMembershipInParts(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			w.cloud = cloud(t, a)
			a.Fail("DescribeAutoScalingGroups", 1, sim.Denied())
			if m, err := w.cloud.Membership(t.Context(), w.plain); !errors.Is(err, spot.ErrFinal) || !reflect.DeepEqual(m, spot.Membership{}) {
				t.Errorf("the group denied: %+v, %v", m, err)
			}
			a.Fail("DescribeLifecycleHooks", 1, sim.Denied())
			if m, err := w.cloud.Membership(t.Context(), w.plain); err != nil || m.LifecycleState != "InService" || !errors.Is(m.HooksErr, spot.ErrFinal) {
				t.Errorf("the hooks denied: %+v, %v", m, err)
			}
		})
	}
}

// Both clouds read the same from one account and make the same calls for it.
func TestCloudsAgree(t *testing.T) {
	read := map[string][]any{}
	calls := map[string][]string{}
	for name, cloud := range clouds() {
		a, w := model()
		w.cloud = cloud(t, a)
		a.SetGroup(nodes, func(g *sim.Group) { g.Suspended = []string{"Terminate"} })
		ended := a.AddInstance(sim.Instance{Tags: map[string]string{"k": "v"}}).ID
		a.SetState(ended, "terminated")
		for _, id := range []string{w.spotted, w.plain, w.standby, w.loner, ended, nowhere} {
			i, err := w.cloud.Instance(t.Context(), id)
			read[name] = append(read[name], i, err == nil)
			m, err := w.cloud.Membership(t.Context(), id)
			read[name] = append(read[name], m, err == nil)
		}
		for _, method := range []string{"Detach", "Instance", "Membership", "Tag", "Untag"} {
			before := len(a.Calls())
			if err := methods(w)[method](t.Context()); err != nil {
				t.Errorf("%s, %s: %v", name, method, err)
			}
			var ops []string
			for _, c := range a.Calls()[before:] {
				ops = append(ops, c.Operation)
			}
			slices.Sort(ops) // two of them are made at once
			calls[name] = append(calls[name], method+" "+strings.Join(ops, " "))
		}
	}
	if direct, http := read["sim.Cloud"], read["awscloud.HTTP"]; !reflect.DeepEqual(direct, http) {
		t.Errorf("read directly\n%+v\nover HTTP\n%+v", direct, http)
	}
	if direct, http := calls["sim.Cloud"], calls["awscloud.HTTP"]; !slices.Equal(direct, http) {
		t.Errorf("calls made directly\n%q\nover HTTP\n%q", direct, http)
	}
}
