package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	selfcheck "github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	readsInstance = "DescribeInstances"
	readsGroup    = "DescribeAutoScalingGroups, DescribeAutoScalingInstances, DescribeInstances, DescribeLifecycleHooks"

	cordons = "patch nodes"
	evicts  = "create pods/eviction, patch nodes"
	forces  = "create pods/eviction, delete pods, patch nodes, patch pods/status"
)

// acts is the expected effect of an event on each node that it names. Each node has a pod that may be evicted and, if
// guarded, a pod whose budget never allows it.
type acts struct {
	sample   string
	settings string // in addition to the defaults, as NAME=value
	age      time.Duration
	guarded  bool
	result   spot.Result
	aws      string // reads
	changes  string // writes
	writes   string // the handler's writes to the cluster
	cordoned bool   // the node stays cordoned
	served   bool   // load balancers still use it
	left     []int  // indexes of the instances that are not affected
}

var eventActions = []acts{
	{sample: "spot-interruption-terminate", age: 105 * time.Second, guarded: true,
		result: spot.Drained, aws: readsGroup, changes: "CreateTags, DetachInstances", writes: forces, cordoned: true},
	{sample: "spot-interruption-doc-arn", age: 105 * time.Second, guarded: true,
		result: spot.Drained, aws: readsGroup, changes: "CreateTags, DetachInstances", writes: forces, cordoned: true},
	{sample: "spot-interruption-stop", age: 105 * time.Second, guarded: true, result: spot.Drained, aws: readsInstance,
		changes: "CreateTags", writes: forces, cordoned: true},
	{sample: "spot-interruption-hibernate", age: 12 * time.Second, guarded: true,
		result: spot.Incomplete, aws: readsInstance, changes: "CreateTags", writes: evicts, cordoned: true},
	{sample: "rebalance-recommendation", settings: "REBALANCE=cordon", guarded: true,
		result: spot.Cordoned, aws: readsInstance, writes: cordons, cordoned: true, served: true},
	{sample: "rebalance-recommendation", settings: "REBALANCE=drain", result: spot.Drained, aws: readsInstance,
		writes: evicts, cordoned: true},
	{sample: "rehearsal-spot-terminate", settings: "REHEARSALS=act", age: 110 * time.Second, guarded: true,
		result: spot.Incomplete, aws: readsInstance, writes: evicts, served: true},
	{sample: "rehearsal-rebalance", settings: "REHEARSALS=act REBALANCE=drain",
		result: spot.Drained, aws: readsInstance, writes: evicts, served: true},
	{sample: "health-scheduled-change", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: readsInstance,
		writes: evicts, cordoned: true},
	{sample: "health-scheduled-change-arn-entity", settings: "SCHEDULED_CHANGE=drain",
		result: spot.Drained, aws: readsInstance, writes: evicts, cordoned: true},
	{sample: "health-organization", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: readsInstance,
		writes: evicts, cordoned: true},
	{sample: "health-page-1-of-2", settings: "SCHEDULED_CHANGE=drain",
		result: spot.Drained, aws: readsInstance, writes: evicts, cordoned: true, left: []int{2}}, // resolved
	{sample: "health-page-2-of-2", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: readsInstance,
		writes: evicts, cordoned: true},
	{sample: "health-backup", settings: "SCHEDULED_CHANGE=drain", result: spot.Ignored, left: []int{0}},
}

// TestEventActions sends every event that the function acts on, in parallel and each to its own nodes.
func TestEventActions(t *testing.T) {
	r := newFixture(t)
	services := map[string]*fakelambda.Service{}
	names, nodes := make([]map[string]string, len(eventActions)), make([][]target, len(eventActions))
	var all []target
	for i, a := range eventActions {
		if services[a.settings] == nil {
			services[a.settings] = r.serviceWith(a.settings)
		}
		names[i] = map[string]string{}
		for _, id := range instancesIn(readSample(t, a.sample)) {
			m := target{r.instance().ID, r.group}
			names[i][id], nodes[i] = m.id, append(nodes[i], m)
		}
		all = append(all, nodes[i]...)
	}
	r.join(all...)
	for i, a := range eventActions {
		for _, m := range nodes[i] {
			r.pin(app{name: "web-" + m.id}, m.id)
			if a.guarded {
				r.pin(app{name: "guarded-" + m.id, grace: 2 * time.Second}, m.id)
			}
		}
	}
	for i, a := range eventActions {
		for _, m := range nodes[i] {
			r.waitReady("web-"+m.id, 1)
			if a.guarded {
				r.guard("guarded-"+m.id, 1)
			}
		}
	}
	ended := make([]<-chan fakelambda.Result, len(eventActions))
	event := func(i int) []byte {
		return r.sample(eventActions[i].sample, max(eventActions[i].age, time.Second), names[i])
	}
	isRehearsal := func(a acts) bool { return strings.HasPrefix(a.sample, "rehearsal") }
	for i, a := range eventActions {
		if !isRehearsal(a) {
			ended[i] = r.send(services[a.settings], event(i))
		}
	}
	outs := make([]spot.Outcome, len(eventActions))
	for i, a := range eventActions {
		if isRehearsal(a) {
			outs[i] = r.outcome(r.rehearse(services[a.settings], func() []byte { return event(i) }), a.result)
		} else {
			outs[i] = r.outcome(<-ended[i], a.result)
		}
	}
	r.auditSettles()
	for i, a := range eventActions {
		each := outs[i].Outcomes
		if len(each) == 0 {
			each = []spot.Outcome{outs[i]}
		}
		for n, m := range nodes[i] {
			if slices.Contains(a.left, n) {
				r.acted(acts{sample: a.sample, settings: a.settings, served: true}, m, spot.Outcome{})
				continue
			}
			at := slices.IndexFunc(each,
				func(o spot.Outcome) bool { return o.Node == m.id && o.Event.Instance == m.id })
			if at < 0 {
				t.Errorf("%s %s: no outcome for %s: %+v", a.sample, a.settings, m.id, outs[i])
				continue
			}
			r.acted(a, m, each[at])
		}
	}
}

var rehearsing sync.Mutex

// rehearse sends a rehearsal that acts. The function allows one at a time in the cluster, which the tests share.
func (r *fixture) rehearse(s *fakelambda.Service, event func() []byte) fakelambda.Result {
	r.Helper()
	rehearsing.Lock()
	defer rehearsing.Unlock()
	return r.invoke(s, event())
}

// serviceWith starts the function with additional settings, as NAME=value.
func (r *fixture) serviceWith(settings string) *fakelambda.Service {
	r.Helper()
	plain := maps.Clone(r.env)
	defer func() { r.env = plain }()
	for _, s := range strings.Fields(settings) {
		name, value, _ := strings.Cut(s, "=")
		r.env["KOPS_SPOT_"+name] = value
	}
	return r.service()
}

// acted compares the node, its pods and the account with the expected effect.
func (r *fixture) acted(a acts, m target, out spot.Outcome) {
	r.Helper()
	bad := func(format string, args ...any) {
		r.Helper()
		r.Errorf("%s %s: "+format, append([]any{a.sample, a.settings}, args...)...)
	}
	if asks, changes := operations(r.calls(m, 0)); asks != a.aws || changes != a.changes {
		bad("AWS got the reads %q, want %q, and the writes %q, want %q", asks, a.aws, changes, a.changes)
	}
	if writes := r.writes(m.id, "web-"+m.id, "guarded-"+m.id); writes != a.writes {
		bad("the handler did %q, want %q", writes, a.writes)
	}
	n := r.getNode(m.id)
	_, unserved := n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]
	if cordoned := n.Labels["autoscaling.cast.ai/draining"] != ""; cordoned != a.cordoned ||
		n.Spec.Unschedulable != a.cordoned || unserved == a.served {
		bad("label %v, unschedulable %v, out of load balancers %v", cordoned, n.Spec.Unschedulable, unserved)
	}
	if len(n.Spec.Taints) != 0 && !a.cordoned {
		bad("the taints %v remain", n.Spec.Taints)
	}
	for name := range n.Annotations {
		if strings.HasPrefix(name, "kops-spot.cast.ai/") && !a.cordoned {
			bad("the annotation %s remains", name)
		}
	}
	left := r.podsOn(m.id)
	slices.Sort(left)
	var want []string
	if strings.Contains(a.writes, "eviction") {
		r.sigterm("web-" + m.id)
	} else {
		want = append(want, "web-"+m.id)
	}
	if a.guarded && !strings.Contains(a.writes, "delete pods") {
		want = slices.Insert(want, 0, "guarded-"+m.id)
	}
	if !slices.Equal(left, want) {
		bad("the node has the pods %v, want %v", left, want)
	}
	if a.changes == "" && out.Result != "" &&
		(out.Replacement.Action != spot.ReplaceNone || out.Replacement.Reason == "") {
		bad("the replacement is %+v", out.Replacement)
	}
	for _, p := range out.Pods {
		if refused := strings.HasPrefix(p.Name, "guarded-"); refused && p.Status != spot.PodSkipped && p.Refusals == 0 {
			bad("no budget refused: %+v", p)
		}
	}
}

// TestLifecycleEvents: the function drains the node and sends heartbeats while a configured hook holds the instance,
// then completes the lifecycle action. It leaves all other hooks alone, including kOps' own.
func TestLifecycleEvents(t *testing.T) {
	const long, theirs, nth = 16 * time.Second, "theirs", "nodes-NTHLifecycleHook"
	r := newFixture(t)
	s := r.serviceWith("HOOKS=" + sampleHook)
	type held struct {
		target
		hooks []string
		exit  time.Duration
		node  bool
		ended <-chan fakelambda.Result
	}
	actions := map[string]*held{
		"asg-terminate-lifecycle":       {hooks: []string{sampleHook}, exit: long, node: true},
		"asg-terminate-lifecycle-short": {hooks: []string{theirs, sampleHook}, exit: time.Second, node: true},
		"asg-to-warm-pool":              {hooks: []string{sampleHook}, exit: time.Second, node: true},
		"asg-from-warm-pool":            {hooks: []string{sampleHook}},
	}
	for name, h := range actions {
		h.target = target{r.instance().ID, r.group}
		r.aws.SetGroup(h.group, func(g *spottest.Group) {
			for _, hook := range append([]string{nth}, h.hooks...) {
				g.Hooks = append(g.Hooks,
					spottest.Hook{Name: hook, Transition: spottest.HookTerminating, Heartbeat: 30 * time.Second})
			}
		})
		if h.node {
			r.join(h.target)
			r.pin(app{name: "web-" + h.id, exit: h.exit}, h.id)
			r.waitReady("web-"+h.id, 1)
		}
		if err := r.aws.CreateTags(t.Context(), []string{h.id},
			map[string]string{"aws-node-termination-handler/managed": ""}); err != nil {
			t.Fatal(err)
		}
		for _, a := range r.aws.TerminateMember(h.id) {
			names := map[string]string{sampleToken: a.Token, sampleGroup: a.Group, sampleHook: a.Hook,
				instancesIn(readSample(t, name))[0]: a.Instance}
			ended := r.send(s, r.sample(name, time.Second, names))
			if a.Hook == sampleHook {
				h.ended = ended
				continue
			}
			before := len(r.aws.Calls())
			out := r.outcome(<-ended, spot.Skipped)
			if out.Lifecycle != nil || !strings.Contains(out.Reason, a.Hook) || len(r.calls(h.target, before)) != 0 {
				t.Errorf("%s: the hook %s is not ours: %+v", name, a.Hook, out)
			}
		}
	}
	for name, h := range actions {
		want := spot.NodeNotFound
		if h.node {
			want = spot.Drained
		}
		out := r.outcome(<-h.ended, want)
		beats := 1
		if h.exit == long {
			beats = 2 // at once, and after half of the heartbeat timeout
		}
		var completed, beaten []spottest.AWSCall
		for _, c := range r.calls(h.target, 0) {
			switch c.Operation {
			case "CompleteLifecycleAction":
				completed = append(completed, c)
			case "RecordLifecycleActionHeartbeat":
				beaten = append(beaten, c)
			case "DetachInstances":
				t.Errorf("%s: AWS got the write %s", name, c.Operation)
			}
		}
		if len(completed) != 1 || completed[0].Err != nil || completed[0].Hook != sampleHook || out.Lifecycle == nil ||
			out.Lifecycle.Completed == nil {
			t.Errorf("%s: completed %+v: %+v", name, completed, out.Lifecycle)
			continue
		}
		if h.node && (len(beaten) != beats || out.Lifecycle.Heartbeats != beats || beaten[0].Hook != sampleHook) {
			t.Errorf("%s: heartbeats %+v: %+v; want %d", name, beaten, out.Lifecycle, beats)
		}
		if h.node {
			if exited := r.record("web-"+h.id, testenv.PodExited); completed[0].Time.Before(exited.Time) ||
				!r.getNode(h.id).Spec.Unschedulable {
				t.Errorf("%s: the action was completed at %v, the pod exited at %v", name, completed[0].Time,
					exited.Time)
			}
		}
		for _, m := range r.aws.Group(h.group).Members {
			if m.ID == h.id && m.State != "Terminating:Wait" { // another hook is still pending
				t.Errorf("%s: the instance is %s", name, m.State)
			}
		}
		if out.Replacement != nil && out.Replacement.Action != spot.ReplaceNone {
			t.Errorf("%s: %+v", name, out.Replacement)
		}
	}
	r.gracePeriodsKept()
}

// selfChecks are the events that start a self-check.
var selfChecks = []string{"self-check-schedule", "self-check-asked"}

// TestSelfCheck: the function is ready with the shipped RBAC and reports missing permissions with another token.
// Neither changes anything.
func TestSelfCheck(t *testing.T) {
	r := newFixture(t)
	ours := r.targets(1)[0]
	other, err := r.cp.ServiceAccountToken(t.Context(), r.namespace, "default", time.Hour)
	must(t, err)
	for _, c := range []struct {
		token  string
		result selfcheck.Readiness
	}{{shared.token, selfcheck.Ready}, {other, selfcheck.NotReady}} {
		s := r.serviceWith("LOGIN=file:" + r.file(string(c.result), c.token))
		var pending []<-chan fakelambda.Result
		for _, name := range selfChecks {
			pending = append(pending, r.send(s, r.sample(name, time.Second, nil)))
		}
		for i, name := range selfChecks {
			res := <-pending[i]
			var check selfcheck.SelfCheck
			if err := json.Unmarshal(res.Payload, &check); err != nil || res.FunctionError != "" {
				t.Fatalf("%s: %v: %s", name, err, res.Payload)
			}
			var rights []string
			for _, one := range check.Checks {
				if one.OK != (one.Advice == "") {
					t.Errorf("%s: %+v", name, one)
				}
				if right, ok := strings.CutPrefix(one.Name, "rbac: "); ok && one.OK {
					rights = append(rights, right)
				}
			}
			if check.Result != c.result || check.Cluster != cluster || check.Version != 1 || check.Overdue == nil ||
				len(check.Overdue) != 0 {
				t.Errorf("%s: %s", name, res.Payload)
			}
			if c.result == selfcheck.Ready && len(rights) != len(kube.Requests())-1 { // except Karpenter's
				t.Errorf("%s: it may %v, and the handler's requests are %v", name, rights, kube.Requests())
			}
			if c.result == selfcheck.NotReady &&
				(len(rights) != 0 || !strings.Contains(string(res.Payload), "deploy/rbac.yaml")) {
				t.Errorf("%s: it may %v: %s", name, rights, res.Payload)
			}
		}
	}
	if asks, changes := operations(r.aws.Calls()); asks != "DescribeAutoScalingGroups, DescribeInstances" ||
		changes != "" {
		t.Errorf("AWS got the reads %q and the writes %q", asks, changes)
	}
	for metric, n := range map[string]int{`"Ready":1`: 2, `"Ready":0`: 2} {
		if seen := strings.Count(r.logs.String(), metric); seen != n {
			t.Errorf("%s is in the log %d times, want %d", metric, seen, n)
		}
	}
	r.nothingChanged(ours.id)
}

// TestSelfCheckNamesOverdueInstances: an instance that still runs long after its deadline makes the function not ready
// until somebody terminates it. The function itself does not.
func TestSelfCheckNamesOverdueInstances(t *testing.T) {
	r := newFixture(t)
	past := time.Now().Add(-20 * time.Minute).UTC().Truncate(time.Second)
	i := r.aws.AddInstance(spottest.Instance{Spot: true, Tags: map[string]string{spot.TagCluster: cluster}})
	r.join(target{id: i.ID})
	r.patchNode(i.ID, fmt.Sprintf(`{"metadata":{"labels":{"autoscaling.cast.ai/draining":"spot-interruption"},"annotations":{
		"kops-spot.cast.ai/event":"x","kops-spot.cast.ai/kind":"spot-terminate","kops-spot.cast.ai/applied":"unschedulable","kops-spot.cast.ai/deadline":%q}},
		"spec":{"unschedulable":true}}`, past.Format(time.RFC3339)))
	check := func(want selfcheck.Readiness) (failed []selfcheck.Check, overdue []spot.OverdueInstance) {
		t.Helper()
		res := r.invoke(r.service(), r.sample("self-check-schedule", time.Second, nil))
		var check selfcheck.SelfCheck
		if err := json.Unmarshal(res.Payload, &check); err != nil || check.Result != want {
			t.Fatalf("%s, %v; want %s", res.Payload, err, want)
		}
		return slices.DeleteFunc(check.Checks, func(c selfcheck.Check) bool { return c.OK }), check.Overdue
	}
	failed, overdue := check(selfcheck.NotReady)
	if !slices.Equal(overdue, []spot.OverdueInstance{{Node: i.ID, Instance: i.ID, Since: past}}) {
		t.Errorf("overdue: %+v", overdue)
	}
	if len(failed) != 1 || failed[0].Name != "overdue: "+i.ID ||
		!strings.Contains(failed[0].Advice, "--instance-ids "+i.ID) {
		t.Errorf("failed: %+v", failed)
	}
	if _, changes := operations(r.aws.Calls()); changes != "" {
		t.Errorf("AWS got the writes %q", changes)
	}
	r.aws.SetState(i.ID, "terminated")
	if _, overdue := check(selfcheck.Ready); len(overdue) != 0 {
		t.Errorf("overdue: %+v", overdue)
	}
}
