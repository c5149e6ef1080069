package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// machine is an instance with a group of its own, and its node.
type machine struct{ id, group string }

// machines are new instances whose nodes have registered.
func (r *fixture) machines(n int) (all []machine) {
	r.Helper()
	for range n {
		all = append(all, machine{r.instance().ID, r.group})
	}
	r.join(all...)
	return all
}

// join registers the nodes of machines, all at once.
func (r *fixture) join(all ...machine) {
	r.Helper()
	var nodes []testenv.Node
	for _, m := range all {
		i, _ := r.aws.Instance(m.id)
		nodes = append(nodes, testenv.Node{InstanceID: i.ID, Zone: i.Zone, PrivateIP: i.PrivateIP, Labels: map[string]string{"e2e": r.namespace}})
	}
	if err := r.cp.CreateNodes(r.Context(), nodes...); err != nil {
		r.Fatal(err)
	}
}

// label puts a label on a node that has registered.
func (r *fixture) label(node, key, value string) {
	r.Helper()
	r.patchNode(node, fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value))
}

func (r *fixture) patchNode(node, patch string) {
	r.Helper()
	if _, err := r.client.CoreV1().Nodes().Patch(r.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		r.Fatal(err)
	}
}

// pin puts one pod without an owner on a node. Nothing takes its place when it goes.
func (r *fixture) pin(a app, node string) {
	r.Helper()
	t := r.template(a)
	t.Spec.NodeName = node
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: a.name, Labels: t.Labels, Annotations: t.Annotations}, Spec: t.Spec}
	if _, err := r.client.CoreV1().Pods(r.namespace).Create(r.Context(), pod, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
}

// send runs the function on an event, and hands over the result when it has ended.
func (r *fixture) send(s *fakelambda.Service, event []byte) <-chan fakelambda.Result {
	r.Helper()
	ended := make(chan fakelambda.Result, 1)
	go func() {
		res, err := s.Invoke(r.Context(), function, fakelambda.RequestResponse, event)
		if err != nil {
			r.Error(err)
		}
		ended <- res
	}()
	return ended
}

// operations are what AWS was asked, each once and in the order of their names, and what was changed there, in its own
// order. What a group answers to a detach is asked while there is time, and does not count.
func operations(calls []spottest.AWSCall) (asks, changes string) {
	var asked, changed []string
	for _, c := range calls {
		switch {
		case c.Operation == "DescribeScalingActivities":
		case strings.HasPrefix(c.Operation, "Describe"):
			asked = append(asked, c.Operation)
		default:
			changed = append(changed, c.Operation)
		}
	}
	slices.Sort(asked)
	return strings.Join(slices.Compact(asked), ", "), strings.Join(changed, ", ")
}

// calls are those to AWS about a machine and its group, without as many as there were before.
func (r *fixture) calls(m machine, before int) (found []spottest.AWSCall) {
	for _, c := range r.aws.Calls()[before:] {
		if slices.Contains(c.IDs, m.id) || m.group != "" && c.Group == m.group {
			found = append(found, c)
		}
	}
	return found
}

// writes are the kinds of requests by which the handler changed a node or one of these pods, each once and in the order
// of their names; what it tells in Kubernetes Events does not count.
func (r *fixture) writes(node string, pods ...string) string {
	r.Helper()
	var found []string
	for _, q := range r.requests(node) {
		if slices.Contains([]string{"get", "list", "watch"}, q.Verb) || q.Resource == "events" || q.Name != node && !slices.Contains(pods, q.Name) {
			continue
		}
		what := q.Resource
		if q.Subresource != "" {
			what += "/" + q.Subresource
		}
		found = append(found, q.Verb+" "+what)
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), ", ")
}

// auditSettles waits for the audit log, which is a moment behind: what is to be absent from it must have had the time.
func (r *fixture) auditSettles() { time.Sleep(time.Second) }

// groupCases are what a warned instance may be to its group. In each, its node is drained.
var groupCases = map[string]struct {
	made   func(*fixture) machine // an instance in a group of its own if nil
	change func(*fixture, machine)
	action spot.ReplaceAction
	why    string // what the outcome's reason says
}{
	"its group is another cluster's, by its tag": {change: func(r *fixture, m machine) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Tags = map[string]string{spot.TagCluster: "other.example.com"} })
	}, action: spot.ReplaceNone, why: "does not carry the tag KubernetesCluster=" + cluster},
	"its group is nobody's, by its tag": {change: func(r *fixture, m machine) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Tags = nil })
	}, action: spot.ReplaceNone, why: "does not carry the tag KubernetesCluster=" + cluster},
	"its group is another cluster's, by its name": {made: func(r *fixture) machine {
		i := spottest.Instance{ID: fmt.Sprintf("i-0e2e%06x%07x", r.number, 0xabc), Spot: true}
		m := machine{i.ID, "nodes.other.example.com"}
		r.aws.AddGroup(spottest.Group{Name: m.group, Tags: map[string]string{spot.TagCluster: cluster}}, i)
		return m
	}, action: spot.ReplaceNone, why: "is not named as kOps names the groups of " + cluster},
	"it is in no group": {made: func(r *fixture) machine {
		return machine{id: r.aws.AddInstance(spottest.Instance{Tags: map[string]string{spot.TagCluster: cluster}}).ID}
	}, action: spot.ReplaceNone, why: "it is in no Auto Scaling group"},
	"somebody has detached it": {made: func(r *fixture) machine {
		return machine{id: r.aws.AddInstance(spottest.Instance{Tags: map[string]string{spot.TagCluster: cluster, spot.TagDetached: "nodes." + cluster}}).ID}
	}, action: spot.ReplaceAlready, why: "it is detached from its group already"},
	"it is in the warm pool": {change: func(r *fixture, m machine) {
		r.aws.SetLifecycle(m.id, "Warmed:Running")
	}, action: spot.ReplaceNone, why: "it is in the warm pool of its group"},
	"its group is ending it": {change: func(r *fixture, m machine) {
		r.aws.SetLifecycle(m.id, "Terminating:Wait")
	}, action: spot.ReplaceAlready, why: "it is leaving its group already: Terminating:Wait"},
	"its group may not launch": {change: func(r *fixture, m machine) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance", "Launch"} })
	}, action: spot.ReplaceNone, why: "the process Launch is suspended"},
	"its group may launch, and not end": {change: func(r *fixture, m machine) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance", "Terminate"} })
	}, action: spot.ReplaceDetach},
	"it is in standby": {change: func(r *fixture, m machine) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance"} })
		r.aws.SetLifecycle(m.id, "Standby")
	}, action: spot.ReplaceDetach},
	"it runs the control plane, by its node": {change: func(r *fixture, m machine) {
		r.label(m.id, "node-role.kubernetes.io/control-plane", "")
	}, action: spot.ReplaceNone, why: "it runs the control plane"},
	"it runs an API server, by its tag": {made: func(r *fixture) machine {
		id := r.instance(func(i *spottest.Instance) { i.Tags = map[string]string{"k8s.io/role/api-server": "1"} }).ID
		return machine{id, r.group}
	}, action: spot.ReplaceNone, why: "it runs the control plane"},
	"it is Karpenter's": {change: func(r *fixture, m machine) {
		r.label(m.id, "karpenter.sh/nodepool", "default")
	}, action: spot.ReplacePending, why: "Karpenter launches a node"},
}

// TestGroupIsAskedOrNot: where nobody may be asked for a replacement, the outcome says why, and neither tag nor detach
// comes to AWS; the node is drained all the same.
func TestGroupIsAskedOrNot(t *testing.T) {
	r := newRig(t)
	s := r.service()
	made := map[string]machine{}
	for name, c := range groupCases {
		if c.made == nil {
			c.made = func(r *fixture) machine { return machine{r.instance().ID, r.group} }
		}
		made[name] = c.made(r)
	}
	r.join(slices.Collect(maps.Values(made))...)
	for name, m := range made {
		if change := groupCases[name].change; change != nil {
			change(r, m)
		}
		r.pin(app{name: "web-" + m.id}, m.id)
	}
	for _, m := range made {
		r.waitReady("web-"+m.id, 1)
	}
	before := len(r.aws.Calls())
	ended := map[string]<-chan fakelambda.Result{}
	for name, m := range made {
		in := r.warning(spot.SpotTerminate, m.id, time.Second)
		in.EventID += m.id
		ended[name] = r.send(s, r.encode(in))
	}
	outs := map[string]spot.Outcome{}
	for name := range made {
		outs[name] = r.outcome(<-ended[name], spot.Drained)
	}
	r.auditSettles()
	for name, m := range made {
		c, got := groupCases[name], outs[name].Replacement
		if got.Action != c.action || !strings.Contains(got.Reason, c.why) {
			t.Errorf("%s: %+v, want %s, because %q", name, got, c.action, c.why)
		}
		want := ""
		if c.action == spot.ReplaceDetach {
			want = "CreateTags, DetachInstances"
		}
		if _, changes := operations(r.calls(m, before)); changes != want {
			t.Errorf("%s: AWS was changed by %q, want %q", name, changes, want)
		}
		if wrote := r.writes(m.id, "web-"+m.id); wrote != "create pods/eviction, patch nodes" {
			t.Errorf("%s: the handler did %q", name, wrote)
		}
	}
}

// TestGroupThatIsBusy: a group that is being changed, by others of the same moment, is asked again, beside the drain and
// for as long as there is time.
func TestGroupThatIsBusy(t *testing.T) {
	t.Parallel()
	type busy struct {
		*fixture
		machine
		detaches int // how many meet with contention
		age      time.Duration
		ended    <-chan fakelambda.Result
	}
	all := map[string]*busy{"for a while": {detaches: 7, age: time.Second}, "to the very end": {detaches: -1, age: 112 * time.Second}}
	for _, b := range all {
		b.fixture = newSerialRig(t)
		b.machine = b.machines(1)[0]
		b.pin(app{name: "web"}, b.id)
		b.waitReady("web", 1)
		b.aws.Fail("CreateTags", 2, spottest.Throttled())
		b.aws.Fail("DetachInstances", b.detaches, spottest.Contention())
		b.ended = b.start(b.service(), b.warning(spot.SpotTerminate, b.id, b.age))
	}
	for name, b := range all {
		out := b.outcome(<-b.ended, spot.Drained)
		got, tries, tags := out.Replacement, len(b.aws.Calls("DetachInstances")), len(b.aws.Calls("CreateTags"))
		inst, _ := b.aws.Instance(b.id)
		if tries < 4 || tags != 3 || inst.Tags[spot.TagDetached] != b.machine.group {
			t.Errorf("%s: %d detaches and %d times tagged: %v", name, tries, tags, inst.Tags)
		}
		if *out.Timings.LastEviction-*out.Timings.Started > 5 {
			t.Errorf("%s: the pod was asked only after %v s", name, *out.Timings.LastEviction)
		}
		switch {
		case b.detaches < 0:
			if got.Action != spot.ReplaceNone || !strings.Contains(got.Reason, "ResourceContention") || b.detached() != 0 {
				t.Errorf("%s: %+v", name, got)
			}
		case got.Action != spot.ReplaceDetach || tries != b.detaches+1 || b.detached() != 1:
			t.Errorf("%s: %d tries, %d detaches: %+v", name, tries, b.detached(), got)
		case *out.Timings.Empty > *got.At:
			t.Errorf("%s: the drain waited for the group: empty after %v s, detached after %v s", name, *out.Timings.Empty, *got.At)
		}
	}
}

// TestGroupRefuses for good: the tags stay, and do not keep the next try from detaching the instance.
func TestGroupRefuses(t *testing.T) {
	r := newRig(t)
	m := r.machines(1)[0]
	s := r.service()
	in := r.warning(spot.SpotTerminate, m.id, time.Second)
	r.aws.Fail("DetachInstances", 1, spottest.Denied())
	out := r.outcome(<-r.start(s, in), spot.Drained)
	if out.Replacement.Action != spot.ReplaceNone || !strings.Contains(out.Replacement.Reason, "autoscaling:DetachInstances") {
		t.Errorf("%+v", out.Replacement)
	}
	if inst, _ := r.aws.Instance(m.id); inst.Tags[spot.TagDetached] != m.group || inst.Tags[spot.TagInterruptedAt] == "" {
		t.Errorf("its tags are %v", inst.Tags)
	}
	if out = r.outcome(<-r.start(s, in), spot.Drained); out.Replacement.Action != spot.ReplaceDetach {
		t.Errorf("%+v", out.Replacement)
	}
	if _, changes := operations(r.calls(m, 0)); changes != "CreateTags, DetachInstances, CreateTags, DetachInstances" || r.detached() != 1 {
		t.Errorf("AWS was changed by %s", changes)
	}
}

// TestGroupWhoseAnswerIsLost has done what it was asked for: it is not asked to do it again, and its tags stay.
func TestGroupWhoseAnswerIsLost(t *testing.T) {
	r := newRig(t)
	m := r.machines(1)[0]
	r.aws.Fail("DetachInstances", 1, spottest.AnswerLost())
	out := r.handle(r.warning(spot.SpotTerminate, m.id, time.Second), spot.Drained)
	if out.Replacement.Action != spot.ReplaceAlready {
		t.Errorf("%+v", out.Replacement)
	}
	if inst, _ := r.aws.Instance(m.id); inst.Tags[spot.TagDetached] != m.group {
		t.Errorf("it is detached, and has the tags %v", inst.Tags)
	}
	r.eventually("the replacement", func() bool {
		members := r.aws.Group(m.group).Members
		return len(members) == 1 && members[0].ID != m.id && members[0].State == "InService"
	})
}

// TestGroupAnswers: the outcome tells what becomes of the request for a replacement, as far as the group says it in time:
// the instance and its node, the group's own reason why there is none, or the one after the other.
func TestGroupAnswers(t *testing.T) {
	r := newRig(t)
	all := r.machines(3)
	launches, lacks, lacked := all[0], all[1], all[2]
	for _, m := range []machine{lacks, lacked} {
		r.aws.SetGroup(m.group, func(g *spottest.Group) {
			g.LaunchError = "InsufficientInstanceCapacity - There is no Spot capacity available"
		})
	}
	patient := r.serviceWith("FOLLOW=45s")
	ended := map[machine]<-chan fakelambda.Result{
		launches: r.start(patient, r.warning(spot.SpotTerminate, launches.id, time.Second)),
		lacks:    r.start(r.serviceWith("FOLLOW=6s"), r.warning(spot.SpotTerminate, lacks.id, time.Second)),
		lacked:   r.start(patient, r.warning(spot.SpotTerminate, lacked.id, time.Second)),
	}
	r.eventually("the function to hear that there is no capacity", func() bool {
		return slices.ContainsFunc(r.calls(lacked, 0), func(c spottest.AWSCall) bool { return c.Operation == "DescribeScalingActivities" })
	})
	r.aws.SetGroup(lacked.group, func(g *spottest.Group) { g.LaunchError = "" })

	for _, m := range []machine{launches, lacked} {
		got := r.outcome(<-ended[m], spot.Drained).Replacement
		members := r.aws.Group(m.group).Members
		if len(members) != 1 || members[0].ID == m.id || got.Instance != members[0].ID || got.Node != got.Instance || got.GroupMessage != "" {
			t.Fatalf("the group has %+v; told is %+v", members, got)
		}
		if n := r.getNode(got.Node); n.Spec.Unschedulable || !strings.HasSuffix(n.Spec.ProviderID, got.Instance) {
			t.Errorf("the node is %+v", n.Spec)
		}
		if *got.LaunchedAt < *got.At-2 || *got.RegisteredAt < *got.LaunchedAt {
			t.Errorf("asked %v s, launched %v s, registered %v s after the event", *got.At, *got.LaunchedAt, *got.RegisteredAt)
		}
	}
	got := r.outcome(<-ended[lacks], spot.Drained).Replacement
	if got.Action != spot.ReplaceDetach || got.Instance != "" || !strings.Contains(got.GroupMessage, "InsufficientInstanceCapacity") {
		t.Errorf("%+v", got)
	}
}
