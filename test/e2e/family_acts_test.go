package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	looksAtInstance = "DescribeInstances"
	looksAtGroup    = "DescribeAutoScalingGroups, DescribeAutoScalingInstances, DescribeInstances, DescribeLifecycleHooks"

	cordons = "patch nodes"
	evicts  = "create pods/eviction, patch nodes"
	forces  = "create pods/eviction, delete pods, patch nodes"
)

// acts is what comes of an event on each of the nodes that it names. On each is a pod that may go and, where there is
// one, a pod whose budget never lets it go.
type acts struct {
	sample   string
	settings string // beside the default, as NAME=value
	age      time.Duration
	guarded  bool
	result   spot.Result
	aws      string // what AWS is asked
	changes  string // and by what it is changed
	writes   string // the handler's kinds of requests that change something in the cluster
	marked   bool   // the node keeps the handler's marks
	served   bool   // load balancers still send to it
	left     []int  // those of the event's instances that nothing is done about
}

var familyActs = []acts{
	{sample: "spot-interruption-terminate", age: 105 * time.Second, guarded: true,
		result: spot.Drained, aws: looksAtGroup, changes: "CreateTags, DetachInstances", writes: forces, marked: true},
	{sample: "spot-interruption-doc-arn", age: 105 * time.Second, guarded: true,
		result: spot.Drained, aws: looksAtGroup, changes: "CreateTags, DetachInstances", writes: forces, marked: true},
	{sample: "spot-interruption-stop", age: 105 * time.Second, guarded: true, result: spot.Drained, aws: looksAtInstance, writes: forces, marked: true},
	{sample: "spot-interruption-hibernate", age: 12 * time.Second, guarded: true,
		result: spot.Incomplete, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "rebalance-recommendation", settings: "REBALANCE=cordon", guarded: true,
		result: spot.Cordoned, aws: looksAtInstance, writes: cordons, marked: true, served: true},
	{sample: "rebalance-recommendation", settings: "REBALANCE=drain", result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "rehearsal-spot-terminate", settings: "REHEARSALS=act", age: 110 * time.Second, guarded: true,
		result: spot.Incomplete, aws: looksAtInstance, writes: evicts, served: true},
	{sample: "rehearsal-rebalance", settings: "REHEARSALS=act REBALANCE=drain",
		result: spot.Drained, aws: looksAtInstance, writes: evicts, served: true},
	{sample: "health-scheduled-change", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "health-scheduled-change-arn-entity", settings: "SCHEDULED_CHANGE=drain",
		result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "health-organization", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "health-page-1-of-2", settings: "SCHEDULED_CHANGE=drain",
		result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true, left: []int{2}}, // it is resolved
	{sample: "health-page-2-of-2", settings: "SCHEDULED_CHANGE=drain", result: spot.Drained, aws: looksAtInstance, writes: evicts, marked: true},
	{sample: "health-backup", settings: "SCHEDULED_CHANGE=drain", result: spot.Ignored, left: []int{0}},
}

// TestFamilyActs: every event that is acted on, each with nodes of its own, and side by side.
func TestFamilyActs(t *testing.T) {
	r := newRig(t)
	services := map[string]*fakelambda.Service{}
	names, nodes := make([]map[string]string, len(familyActs)), make([][]machine, len(familyActs))
	var all []machine
	for i, a := range familyActs {
		if services[a.settings] == nil {
			services[a.settings] = r.serviceWith(a.settings)
		}
		names[i] = map[string]string{}
		for _, id := range instancesIn(readSample(t, a.sample)) {
			m := machine{r.instance().ID, r.group}
			names[i][id], nodes[i] = m.id, append(nodes[i], m)
		}
		all = append(all, nodes[i]...)
	}
	r.join(all...)
	for i, a := range familyActs {
		for _, m := range nodes[i] {
			r.pin(app{name: "web-" + m.id}, m.id)
			if a.guarded {
				r.pin(app{name: "guarded-" + m.id, grace: 2 * time.Second}, m.id)
			}
		}
	}
	for i, a := range familyActs {
		for _, m := range nodes[i] {
			r.waitReady("web-"+m.id, 1)
			if a.guarded {
				r.guard("guarded-"+m.id, 1)
			}
		}
	}
	ended := make([]<-chan fakelambda.Result, len(familyActs))
	for i, a := range familyActs {
		ended[i] = r.send(services[a.settings], r.sample(a.sample, max(a.age, time.Second), names[i]))
	}
	outs := make([]spot.Outcome, len(familyActs))
	for i, a := range familyActs {
		outs[i] = r.outcome(<-ended[i], a.result)
	}
	r.auditSettles()
	for i, a := range familyActs {
		each := outs[i].Outcomes
		if len(each) == 0 {
			each = []spot.Outcome{outs[i]}
		}
		for n, m := range nodes[i] {
			if slices.Contains(a.left, n) {
				r.acted(acts{sample: a.sample, settings: a.settings, served: true}, m, spot.Outcome{})
				continue
			}
			at := slices.IndexFunc(each, func(o spot.Outcome) bool { return o.Node == m.id && o.Event.Instance == m.id })
			if at < 0 {
				t.Errorf("%s %s: no outcome tells of %s: %+v", a.sample, a.settings, m.id, outs[i])
				continue
			}
			r.acted(a, m, each[at])
		}
	}
}

// serviceWith is the function with more settings, as NAME=value.
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

// acted demands of a node, of its pods and of the account what an event is to have done.
func (r *fixture) acted(a acts, m machine, out spot.Outcome) {
	r.Helper()
	bad := func(format string, args ...any) {
		r.Helper()
		r.Errorf("%s %s: "+format, append([]any{a.sample, a.settings}, args...)...)
	}
	if asks, changes := operations(r.calls(m, 0)); asks != a.aws || changes != a.changes {
		bad("AWS was asked %q, want %q, and changed by %q, want %q", asks, a.aws, changes, a.changes)
	}
	if writes := r.writes(m.id, "web-"+m.id, "guarded-"+m.id); writes != a.writes {
		bad("the handler did %q, want %q", writes, a.writes)
	}
	n := r.getNode(m.id)
	_, unserved := n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]
	if marked := n.Labels["autoscaling.cast.ai/draining"] != ""; marked != a.marked || n.Spec.Unschedulable != a.marked || unserved == a.served {
		bad("marked %v, unschedulable %v, out of load balancers %v", marked, n.Spec.Unschedulable, unserved)
	}
	if len(n.Spec.Taints) != 0 && !a.marked {
		bad("the taints %v are left", n.Spec.Taints)
	}
	for name := range n.Annotations {
		if strings.HasPrefix(name, "kops-spot.cast.ai/") && !a.marked {
			bad("the annotation %s is left", name)
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
		bad("on the node there are %v, want %v", left, want)
	}
	if a.changes == "" && out.Result != "" && (out.Replacement.Action != spot.ReplaceNone || out.Replacement.Reason == "") {
		bad("the replacement is %+v", out.Replacement)
	}
	for _, p := range out.Pods {
		if refused := strings.HasPrefix(p.Name, "guarded-"); refused && p.Status != spot.PodSkipped && p.Refusals == 0 {
			bad("no budget refused: %+v", p)
		}
	}
}

// TestFamilyLifecycle: while a hook that is named holds an instance, its node is drained and heartbeats are sent; only
// then is the group let go on. Hooks that are not named, and kOps' own where its drainer is, are left to whom they belong.
func TestFamilyLifecycle(t *testing.T) {
	const long, theirs, nth = 16 * time.Second, "theirs", "nodes-NTHLifecycleHook"
	r := newRig(t)
	s := r.serviceWith("HOOKS=" + sampleHook + "," + nth)
	type held struct {
		machine
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
		h.machine = machine{r.instance().ID, r.group}
		r.aws.SetGroup(h.group, func(g *spottest.Group) {
			for _, hook := range append([]string{nth}, h.hooks...) {
				g.Hooks = append(g.Hooks, spottest.Hook{Name: hook, Transition: spottest.HookTerminating, Heartbeat: 30 * time.Second})
			}
		})
		if h.node {
			r.join(h.machine)
			r.pin(app{name: "web-" + h.id, exit: h.exit}, h.id)
			r.waitReady("web-"+h.id, 1)
		}
		if err := r.aws.CreateTags(t.Context(), []string{h.id}, map[string]string{"aws-node-termination-handler/managed": ""}); err != nil {
			t.Fatal(err)
		}
		for _, a := range r.aws.TerminateMember(h.id) {
			names := map[string]string{sampleToken: a.Token, sampleGroup: a.Group, sampleHook: a.Hook, instancesIn(readSample(t, name))[0]: a.Instance}
			ended := r.send(s, r.sample(name, time.Second, names))
			if a.Hook == sampleHook {
				h.ended = ended
				continue
			}
			before := len(r.aws.Calls())
			out := r.outcome(<-ended, spot.Skipped)
			if out.Lifecycle != nil || !strings.Contains(out.Reason, a.Hook) || a.Hook == theirs && len(r.calls(h.machine, before)) != 0 {
				t.Errorf("%s: the hook %s is another's: %+v", name, a.Hook, out)
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
			beats = 2 // at once, and after half of the hook's timeout
		}
		var completed, beaten []spottest.AWSCall
		for _, c := range r.calls(h.machine, 0) {
			switch c.Operation {
			case "CompleteLifecycleAction":
				completed = append(completed, c)
			case "RecordLifecycleActionHeartbeat":
				beaten = append(beaten, c)
			case "DetachInstances":
				t.Errorf("%s: AWS was changed by %s", name, c.Operation)
			}
		}
		if len(completed) != 1 || completed[0].Err != nil || completed[0].Hook != sampleHook || out.Lifecycle == nil || out.Lifecycle.Completed == nil {
			t.Errorf("%s: completed %+v: %+v", name, completed, out.Lifecycle)
			continue
		}
		if h.node && (len(beaten) != beats || out.Lifecycle.Heartbeats != beats || beaten[0].Hook != sampleHook) {
			t.Errorf("%s: heartbeats %+v: %+v; want %d", name, beaten, out.Lifecycle, beats)
		}
		if h.node {
			if exited := r.record("web-"+h.id, testenv.PodExited); completed[0].Time.Before(exited.Time) || !r.getNode(h.id).Spec.Unschedulable {
				t.Errorf("%s: the group was let go on at %v, the pod had exited at %v", name, completed[0].Time, exited.Time)
			}
		}
		for _, m := range r.aws.Group(h.group).Members {
			if m.ID == h.id && m.State != "Terminating:Wait" { // there is still another's hook
				t.Errorf("%s: the instance is %s", name, m.State)
			}
		}
		if out.Replacement != nil && out.Replacement.Action != spot.ReplaceNone {
			t.Errorf("%s: %+v", name, out.Replacement)
		}
	}
	r.gracesStand()
}

// checked are the events by which the function is asked whether it could act.
var checked = []string{"self-check-schedule", "self-check-asked"}

// TestFamilySelfCheck: with the shipped RBAC the function is ready, and with a credential that is not bound by it, it says
// so; neither changes anything.
func TestFamilySelfCheck(t *testing.T) {
	r := newRig(t)
	ours := r.machines(1)[0]
	other, err := r.cp.ServiceAccountToken(t.Context(), r.namespace, "default", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token  string
		result selfcheck.Readiness
	}{{shared.token, selfcheck.Ready}, {other, selfcheck.NotReady}} {
		s := r.serviceWith("LOGIN=file:" + r.file(string(c.result), c.token))
		var told []<-chan fakelambda.Result
		for _, name := range checked {
			told = append(told, r.send(s, r.sample(name, time.Second, nil)))
		}
		for i, name := range checked {
			res := <-told[i]
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
			if check.Result != c.result || check.Cluster != cluster || check.Version != 1 || check.Overdue == nil || len(check.Overdue) != 0 {
				t.Errorf("%s: %s", name, res.Payload)
			}
			if c.result == selfcheck.Ready && len(rights) != len(kube.Requests())-1 { // Karpenter's is not asked for
				t.Errorf("%s: it may %v, and the handler's requests are %v", name, rights, kube.Requests())
			}
			if c.result == selfcheck.NotReady && (len(rights) != 0 || !strings.Contains(string(res.Payload), "deploy/rbac.yaml")) {
				t.Errorf("%s: it may %v: %s", name, rights, res.Payload)
			}
		}
	}
	if asks, changes := operations(r.aws.Calls()); asks != "DescribeAutoScalingGroups, DescribeInstances" || changes != "" {
		t.Errorf("AWS was asked %q and changed by %q", asks, changes)
	}
	for metric, n := range map[string]int{`"Ready":1`: 2, `"Ready":0`: 2} {
		if seen := strings.Count(r.logs.String(), metric); seen != n {
			t.Errorf("%s stands %d times in the log, want %d", metric, seen, n)
		}
	}
	r.nothingChanged(ours.id)
}

// TestFamilySelfCheckNamesOverdueInstances: with an instance that EC2 was to take back and that still runs long after, the
// function is not ready until somebody terminates it; the function itself does not.
func TestFamilySelfCheckNamesOverdueInstances(t *testing.T) {
	r := newRig(t)
	past := time.Now().Add(-20 * time.Minute).UTC().Truncate(time.Second)
	i := r.aws.AddInstance(spottest.Instance{Spot: true, Tags: map[string]string{spot.TagCluster: cluster}})
	r.join(machine{id: i.ID})
	r.patchNode(i.ID, fmt.Sprintf(`{"metadata":{"labels":{"autoscaling.cast.ai/draining":"spot-interruption"},"annotations":{
		"kops-spot.cast.ai/event":"x","kops-spot.cast.ai/kind":"spot-terminate","kops-spot.cast.ai/applied":"unschedulable","kops-spot.cast.ai/deadline":%q}},
		"spec":{"unschedulable":true}}`, past.Format(time.RFC3339)))
	check := func(want selfcheck.Readiness) (failed []selfcheck.Check, overdue []spot.OverdueInstance) {
		t.Helper()
		res := r.invoke(r.service(), r.sample("self-check-schedule", time.Second, nil))
		var told selfcheck.SelfCheck
		if err := json.Unmarshal(res.Payload, &told); err != nil || told.Result != want {
			t.Fatalf("%s, %v; want %s", res.Payload, err, want)
		}
		return slices.DeleteFunc(told.Checks, func(c selfcheck.Check) bool { return c.OK }), told.Overdue
	}
	failed, overdue := check(selfcheck.NotReady)
	if !slices.Equal(overdue, []spot.OverdueInstance{{Node: i.ID, Instance: i.ID, Since: past}}) {
		t.Errorf("overdue are %+v", overdue)
	}
	if len(failed) != 1 || failed[0].Name != "overdue: "+i.ID || !strings.Contains(failed[0].Advice, "--instance-ids "+i.ID) {
		t.Errorf("failed have %+v", failed)
	}
	if _, changes := operations(r.aws.Calls()); changes != "" {
		t.Errorf("AWS was changed by %q", changes)
	}
	r.aws.SetState(i.ID, "terminated")
	if _, overdue := check(selfcheck.Ready); len(overdue) != 0 {
		t.Errorf("overdue are %+v", overdue)
	}
}
