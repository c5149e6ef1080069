package aws_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
)

// clouds are two ways to access a spottest.AWS: directly, and with the SDK over HTTP. All tests run on both.
func clouds() map[string]func(*testing.T, *spottest.AWS) cloud {
	return map[string]func(*testing.T, *spottest.AWS) cloud{
		"spottest":      func(_ *testing.T, a *spottest.AWS) cloud { return a.Cloud() },
		"SDK over HTTP": func(t *testing.T, a *spottest.AWS) cloud { return kopsaws.New(serve(t, a)) },
	}
}

// serve starts the fake and returns its environment.
func serve(t *testing.T, a *spottest.AWS) aws.Config {
	t.Helper()
	s, err := fakeaws.Start(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return environment(t, s)
}

// environment returns a configuration that uses only the environment of the fake.
func environment(t *testing.T, s *fakeaws.Server) aws.Config {
	t.Helper()
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// model creates the contract's world in a spottest.AWS.
func model() (*spottest.AWS, *world) {
	a := spottest.NewAWS(region)
	a.SetInstanceTimes(spottest.InstanceTimes{Start: 50 * time.Millisecond, ShutDown: 50 * time.Millisecond})
	g := a.AddGroup(spottest.Group{
		Name: nodes, Tags: map[string]string{spot.TagCluster: cluster},
		Hooks: []spottest.Hook{
			{Name: "start", Transition: spottest.HookLaunching, Heartbeat: time.Minute},
			{Name: "drain", Transition: spottest.HookTerminating, Heartbeat: time.Minute},
		},
		LaunchTime: 50 * time.Millisecond, DetachTime: 50 * time.Millisecond,
	}, spottest.Instance{Spot: true}, spottest.Instance{}, spottest.Instance{})
	w := &world{
		made:    time.Now(),
		spotted: g.Members[0].ID,
		plain:   g.Members[1].ID,
		standby: g.Members[2].ID,
		loner:   a.AddInstance(spottest.Instance{}).ID,
		sleeper: a.AddInstance(spottest.Instance{Hibernates: true}).ID,
		members: func() map[string]string {
			states := map[string]string{}
			for _, m := range a.Group(nodes).Members {
				states[m.ID] = m.State
			}
			return states
		},
		desired: func() int { return a.Group(nodes).Desired },
		suspend: func(p ...string) { a.SetGroup(nodes, func(g *spottest.Group) { g.Suspended = p }) },
		end:     func(member string) spot.Action { return a.TerminateMember(member)[0] },

		terminate: func(id string) { a.SetState(id, "terminated") },
	}
	a.SetGroup(nodes, func(g *spottest.Group) { g.Desired = 2 }) // as after EnterStandby with a decrement
	a.SetLifecycle(w.standby, "Standby")
	return a, w
}

func TestContract(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			w.cloud = cloud(t, a)
			contract(t, w)
		})
	}
}

// methods are all calls of a Cloud in the contract's world.
func methods(w *world) map[string]func(context.Context) error {
	held := sync.OnceValue(func() spot.Action { return w.end(w.spotted) })
	over := sync.OnceValue(func() spot.Action { return w.end(w.standby) })
	return map[string]func(context.Context) error{
		"Instance":     func(ctx context.Context) error { _, err := w.cloud.Instance(ctx, w.plain); return err },
		"Membership":   func(ctx context.Context) error { _, err := w.cloud.Membership(ctx, w.plain); return err },
		"Tag":          func(ctx context.Context) error { return w.cloud.Tag(ctx, w.plain, map[string]string{"a": ""}) },
		"Detach":       func(ctx context.Context) error { return w.cloud.Detach(ctx, w.plain, nodes) },
		"Hook":         func(ctx context.Context) error { _, err := w.cloud.Hook(ctx, nodes, "drain"); return err },
		"Heartbeat":    func(ctx context.Context) error { return w.cloud.Heartbeat(ctx, held()) },
		"Complete":     func(ctx context.Context) error { return w.cloud.Complete(ctx, over()) },
		"Group":        func(ctx context.Context) error { _, err := w.cloud.Group(ctx, nodes); return err },
		"DetachedFrom": func(ctx context.Context) error { _, err := w.cloud.DetachedFrom(ctx, nodes); return err },
		"Readable":     func(ctx context.Context) error { return w.cloud.Readable(ctx, cluster) },
		"InstancesOf": func(ctx context.Context) error {
			_, err := w.cloud.InstancesOf(ctx, []string{w.plain, nowhere})
			return err
		},
	}
}

// TestFaultsAndCalls: every fault has the same meaning for every method and costs one call, because only the handler
// retries. Both clouds make the same calls.
func TestFaultsAndCalls(t *testing.T) {
	faults := map[string]struct {
		fault spottest.Fault
		final bool // otherwise worth a retry
	}{
		"throttled":   {spottest.Throttled(), false},
		"contention":  {spottest.Contention(), false},
		"broken":      {spottest.Broken(), false},
		"unreachable": {spottest.Unreachable(), false},
		"denied":      {spottest.Denied(), true},
	}
	calls := map[string][]string{}
	for name, cloud := range clouds() {
		a, w := model()
		a.SetGroup(nodes, func(g *spottest.Group) { g.DetachTime = time.Hour })
		w.cloud = cloud(t, a)
		ask := methods(w)
		for _, method := range slices.Sorted(maps.Keys(ask)) {
			for what, f := range faults {
				a.Heal()
				before := len(a.Calls())
				a.Fail(spottest.AnyOperation, 1, f.fault)
				err := ask[method](t.Context())
				if err == nil || errors.Is(err, spot.ErrPermanent) != f.final || errors.Is(err, spot.ErrNotFound) {
					t.Errorf("%s, %s, %s: error %v", name, what, method, err)
				}
				// Readable continues, to report both services.
				if n := len(a.Calls()) - before; n != 1 && method != "Readable" {
					t.Errorf("%s, %s, %s: %d calls", name, what, method, n)
				}
			}
			a.Heal()
			before := len(a.Calls())
			if err := ask[method](t.Context()); err != nil {
				t.Errorf("%s, %s: %v", name, method, err)
			}
			var ops []string
			for _, c := range a.Calls()[before:] {
				ops = append(ops, fmt.Sprint(c.Operation, c.Group, c.Hook, c.IDs, c.Keys))
			}
			slices.Sort(ops) // two calls run in parallel
			calls[name] = append(calls[name], method+" "+strings.Join(ops, " "))
		}
	}
	if direct, http := calls["sim.Cloud"], calls["awscloud.HTTP"]; !slices.Equal(direct, http) {
		t.Errorf("calls made directly\n%q\nover HTTP\n%q", direct, http)
	}
}

// TestUnknownRequests: unknown actions and parameters are errors.
func TestUnknownRequests(t *testing.T) {
	a, w := model()
	e, ctx := ec2.NewFromConfig(serve(t, a)), t.Context()
	_, err := e.DescribeVolumes(ctx, nil)
	if err == nil || !strings.Contains(err.Error(), "InvalidAction") {
		t.Errorf("an action: %v", err)
	}
	_, err = e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{DryRun: aws.Bool(true),
		InstanceIds: []string{w.plain}})
	if err == nil || !strings.Contains(err.Error(), "UnknownParameter: The fake does not know the parameters DryRun") {
		t.Errorf("a parameter: %v", err)
	}
	if calls := a.Calls(); len(calls) != 0 {
		t.Errorf("the account got calls: %+v", calls)
	}
}
