package awsfake_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
func clouds() map[string]func(*testing.T, *sim.AWS) cloud {
	return map[string]func(*testing.T, *sim.AWS) cloud{
		"sim.Cloud":     func(_ *testing.T, a *sim.AWS) cloud { return a.Cloud() },
		"awscloud.HTTP": func(t *testing.T, a *sim.AWS) cloud { return awscloud.New(config(serve(t, a).URL(), "AKIDFAKE")) },
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
	a.SetInstanceTimes(sim.InstanceTimes{Start: 50 * time.Millisecond, Stop: 50 * time.Millisecond, ShutDown: 50 * time.Millisecond})
	g := a.AddGroup(sim.Group{
		Name: nodes, Min: 2, Max: 3, Tags: map[string]string{spot.TagCluster: cluster},
		Hooks: []sim.Hook{
			{Name: "start", Transition: sim.HookLaunching, Heartbeat: time.Minute},
			{Name: "drain", Transition: sim.HookTerminating, Heartbeat: time.Minute},
		},
		LaunchTime: 50 * time.Millisecond, DetachTime: 50 * time.Millisecond,
	}, sim.Instance{Spot: true}, sim.Instance{}, sim.Instance{})
	w := &world{
		made:    time.Now(),
		spotted: g.Members[0].ID,
		plain:   g.Members[1].ID,
		standby: g.Members[2].ID,
		loner:   a.AddInstance(sim.Instance{}).ID,
		sleeper: a.AddInstance(sim.Instance{Hibernates: true}).ID,
		members: func() map[string]string {
			states := map[string]string{}
			for _, m := range a.Group(nodes).Members {
				states[m.ID] = m.State
			}
			return states
		},
		desired: func() int { return a.Group(nodes).Desired },
		suspend: func(p ...string) { a.SetGroup(nodes, func(g *sim.Group) { g.Suspended = p }) },
		end:     func(member string) spot.Action { return a.EndMember(member, false)[0] },

		terminate: func(id string) { a.SetState(id, "terminated") },
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

// methods are the calls of a Cloud, on the world of the contract; each once.
func methods(w *world) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Instance":   func(ctx context.Context) error { _, err := w.cloud.Instance(ctx, w.plain); return err },
		"Membership": func(ctx context.Context) error { _, err := w.cloud.Membership(ctx, w.plain); return err },
		"Tag":        func(ctx context.Context) error { return w.cloud.Tag(ctx, w.plain, map[string]string{"a": ""}) },
		"Detach":     func(ctx context.Context) error { return w.cloud.Detach(ctx, w.plain, nodes) },
		"Launches":   func(ctx context.Context) error { _, err := w.cloud.Launches(ctx, nodes, w.made); return err },
		"Hook":       func(ctx context.Context) error { _, err := w.cloud.Hook(ctx, nodes, "drain"); return err },
		"Heartbeat":  func(ctx context.Context) error { return w.cloud.Heartbeat(ctx, w.end(w.spotted)) },
		"Complete":   func(ctx context.Context) error { return w.cloud.Complete(ctx, w.end(w.standby)) },
		"Readable":   func(ctx context.Context) error { return w.cloud.Readable(ctx, cluster) },
		"InstancesOf": func(ctx context.Context) error {
			_, err := w.cloud.InstancesOf(ctx, []string{w.plain, nowhere})
			return err
		},
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
					want := 1
					if method == "Readable" { // goes on, to tell of both services
						want = 2
					}
					if calls := a.Calls()[before:]; len(calls) != want {
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

// A completion whose answer was lost has happened, and a heartbeat too.
func TestLifecycleAnswerLost(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			w.cloud = cloud(t, a)
			act := w.end(w.plain)
			before, _ := a.HeldUntil(act.Token)
			a.Fail("RecordLifecycleActionHeartbeat", 1, sim.AnswerLost())
			if err := w.cloud.Heartbeat(t.Context(), act); err == nil || errors.Is(err, spot.ErrFinal) {
				t.Errorf("lost: %v", err)
			}
			if after, ok := a.HeldUntil(act.Token); !ok || !after.After(before) {
				t.Errorf("held until %v, before %v", after, before)
			}
			a.Fail("CompleteLifecycleAction", 1, sim.AnswerLost())
			if err := w.cloud.Complete(t.Context(), act); err == nil || errors.Is(err, spot.ErrFinal) {
				t.Errorf("lost: %v", err)
			}
			if err := w.cloud.Complete(t.Context(), act); !errors.Is(err, spot.ErrFinal) || !strings.Contains(err.Error(), "No active Lifecycle Action found with token "+act.Token) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// Both clouds read the same from one account.
func TestCloudsReadTheSame(t *testing.T) {
	a, w := model()
	ctx := t.Context()
	a.SetGroup(nodes, func(g *sim.Group) { g.Suspended = []string{"Terminate"} })
	ended := a.AddInstance(sim.Instance{Tags: map[string]string{"k": "v"}}).ID
	a.SetState(ended, "terminated")
	stopped := a.AddInstance(sim.Instance{Hibernates: true, Spot: true}).ID
	a.SetState(stopped, "stopped")
	for range 3 { // launches that fail, and others
		for _, capacity := range []string{"", "InsufficientInstanceCapacity - There is none."} {
			a.SetGroup(nodes, func(g *sim.Group) { g.LaunchError, g.Desired = capacity, g.Desired+1 })
		}
	}
	w.end(w.standby)

	read := map[string][]any{}
	for name, cloud := range clouds() {
		c := cloud(t, a)
		tell := func(v any, err error) { read[name] = append(read[name], v, err == nil) }
		ids := []string{w.spotted, w.plain, w.standby, w.loner, w.sleeper, ended, stopped, nowhere}
		for _, id := range ids {
			i, err := c.Instance(ctx, id)
			tell(i, err)
			m, err := c.Membership(ctx, id)
			tell(m, err)
		}
		all, err := c.InstancesOf(ctx, ids)
		tell(all, err)
		for _, since := range []time.Time{w.made, {}, time.Now().Add(time.Hour)} {
			launches, err := c.Launches(ctx, nodes, since)
			tell(launches, err)
		}
		for _, hook := range []string{"start", "drain", "x"} {
			h, err := c.Hook(ctx, nodes, hook)
			tell(h, err)
		}
	}
	if direct, http := read["sim.Cloud"], read["awscloud.HTTP"]; !reflect.DeepEqual(direct, http) {
		t.Errorf("read directly\n%+v\nover HTTP\n%+v", direct, http)
	}
}

// Both clouds make the same calls.
func TestCloudsCallTheSame(t *testing.T) {
	calls := map[string][]string{}
	for name, cloud := range clouds() {
		a, w := model()
		w.cloud = cloud(t, a)
		for _, method := range slices.Sorted(maps.Keys(methods(w))) {
			before := len(a.Calls())
			if err := methods(w)[method](t.Context()); err != nil {
				t.Errorf("%s, %s: %v", name, method, err)
			}
			var ops []string
			for _, c := range a.Calls()[before:] {
				ops = append(ops, fmt.Sprint(c.Operation, c.Group, c.Hook, c.IDs, c.Keys))
			}
			slices.Sort(ops) // two of them are made at once
			calls[name] = append(calls[name], method+" "+strings.Join(ops, " "))
		}
	}
	if direct, http := calls["sim.Cloud"], calls["awscloud.HTTP"]; !slices.Equal(direct, http) {
		t.Errorf("calls made directly\n%q\nover HTTP\n%q", direct, http)
	}
}
