package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// target is an instance, its group and its node.
type target struct{ id, group string }

// targets creates instances whose nodes are registered.
func (r *fixture) targets(n int) (all []target) {
	r.Helper()
	for range n {
		all = append(all, target{r.instance().ID, r.group})
	}
	r.join(all...)
	return all
}

// join registers the nodes of the instances in parallel.
func (r *fixture) join(all ...target) {
	r.Helper()
	var nodes []testenv.Node
	for _, m := range all {
		i, _ := r.aws.Instance(m.id)
		nodes = append(nodes, r.nodeOf(i, i.ID))
	}
	must(r, r.cp.CreateNodes(r.Context(), nodes...))
}

func (r *fixture) label(node, key, value string) {
	r.Helper()
	r.patchNode(node, fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value))
}

func (r *fixture) patchNode(node, patch string) {
	r.Helper()
	if _, err := r.client.CoreV1().Nodes().Patch(r.Context(), node, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{}); err != nil {
		r.Fatal(err)
	}
}

// pin creates one pod without an owner on a node. It is not recreated after an eviction.
func (r *fixture) pin(a app, node string) {
	r.Helper()
	t := r.template(a)
	t.Spec.NodeName = node
	r.createPod(a.name, t)
}

// send invokes the function with an event and returns a channel for the result.
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

// operations returns the distinct reads of AWS, sorted, and the writes, sorted.
func operations(calls []spottest.AWSCall) (asks, changes string) {
	var asked, changed []string
	for _, c := range calls {
		switch {
		case strings.HasPrefix(c.Operation, "Describe"):
			asked = append(asked, c.Operation)
		default:
			changed = append(changed, c.Operation)
		}
	}
	slices.Sort(asked)
	slices.Sort(changed) // tagging and the detach run in parallel
	return strings.Join(slices.Compact(asked), ", "), strings.Join(changed, ", ")
}

// calls returns the AWS calls about a target and its group, except for the first `before` calls.
func (r *fixture) calls(m target, before int) (found []spottest.AWSCall) {
	for _, c := range r.aws.Calls()[before:] {
		if slices.Contains(c.IDs, m.id) || m.group != "" && c.Group == m.group {
			found = append(found, c)
		}
	}
	return found
}

// writes returns the distinct kinds of the handler's writes to a node or one of these pods, sorted, without Kubernetes
// Events.
func (r *fixture) writes(node string, pods ...string) string {
	r.Helper()
	var found []string
	for _, q := range r.requests(node) {
		if slices.Contains([]string{"get", "list", "watch"}, q.Verb) || q.Resource == "events" || q.Name != node &&
			!slices.Contains(pods, q.Name) {
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

// auditSettles waits for the audit log, which is a moment behind, before a test looks for the absence of a request.
func (r *fixture) auditSettles() { time.Sleep(time.Second) }

// groupCases are the states of a warned instance in its group. The node is drained in every case.
var groupCases = map[string]struct {
	made   func(*fixture) target // an instance in its own group if nil
	change func(*fixture, target)
	action spot.ReplaceAction
	why    string // part of the outcome's reason
}{
	"its group is another cluster's, by its tag": {change: func(r *fixture, m target) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Tags = map[string]string{spot.TagCluster: "other.example.com"} })
	}, action: spot.ReplaceNone, why: "does not have the tag KubernetesCluster=" + cluster},
	"its group has no tag": {change: func(r *fixture, m target) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Tags = nil })
	}, action: spot.ReplaceNone, why: "does not have the tag KubernetesCluster=" + cluster},
	"its group is another cluster's, by its name": {made: func(r *fixture) target {
		i := spottest.Instance{ID: fmt.Sprintf("i-0e2e%06x%07x", r.number, 0xabc), Spot: true}
		m := target{i.ID, "nodes.other.example.com"}
		r.aws.AddGroup(spottest.Group{Name: m.group, Tags: map[string]string{spot.TagCluster: cluster}}, i)
		return m
	}, action: spot.ReplaceNone, why: "does not end with ." + cluster},
	"it is in no group": {made: func(r *fixture) target {
		return target{id: r.aws.AddInstance(spottest.Instance{Tags: map[string]string{spot.TagCluster: cluster}}).ID}
	}, action: spot.ReplaceNone, why: "the instance is in no Auto Scaling group"},
	"it is already detached": {made: func(r *fixture) target {
		return target{id: r.aws.AddInstance(spottest.Instance{Tags: map[string]string{spot.TagCluster: cluster,
			spot.TagDetached: "nodes." + cluster}}).ID}
	}, action: spot.ReplaceAlready, why: "already detached from its group"},
	"it is in the warm pool": {change: func(r *fixture, m target) {
		r.aws.SetLifecycle(m.id, "Warmed:Running")
	}, action: spot.ReplaceNone, why: "the instance is in the warm pool of group"},
	"its group is terminating it": {change: func(r *fixture, m target) {
		r.aws.SetLifecycle(m.id, "Terminating:Wait")
	}, action: spot.ReplaceAlready, why: "already leaving its group: Terminating:Wait"},
	"its group may not launch": {change: func(r *fixture, m target) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance", "Launch"} })
	}, action: spot.ReplaceNone, why: "the process Launch of group"},
	"its group may launch, but not terminate": {change: func(r *fixture, m target) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance", "Terminate"} })
	}, action: spot.ReplaceDetach},
	"it is in standby": {change: func(r *fixture, m target) {
		r.aws.SetGroup(m.group, func(g *spottest.Group) { g.Suspended = []string{"AZRebalance"} })
		r.aws.SetLifecycle(m.id, "Standby")
	}, action: spot.ReplaceDetach},
	"it runs the control plane, by its node": {change: func(r *fixture, m target) {
		r.label(m.id, "node-role.kubernetes.io/control-plane", "")
	}, action: spot.ReplaceNone, why: "control-plane nodes are never detached"},
	"it runs an API server, by its tag": {made: func(r *fixture) target {
		id := r.instance(func(i *spottest.Instance) { i.Tags = map[string]string{"k8s.io/role/api-server": "1"} }).ID
		return target{id, r.group}
	}, action: spot.ReplaceNone, why: "control-plane nodes are never detached"},
	"it is Karpenter's": {change: func(r *fixture, m target) {
		r.label(m.id, "karpenter.sh/nodepool", "default")
	}, action: spot.ReplacePending, why: "Karpenter launches a node"},
}

// TestReplacementByGroup: where no replacement is requested, the outcome says why and AWS gets neither tag nor detach.
func TestReplacementByGroup(t *testing.T) {
	r := newFixture(t)
	s := r.service()
	made := map[string]target{}
	for name, c := range groupCases {
		if c.made == nil {
			c.made = func(r *fixture) target { return target{r.instance().ID, r.group} }
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
		want := c.action == spot.ReplaceDetach
		if _, changes := operations(r.calls(m, before)); strings.HasSuffix(changes, "DetachInstances") != want {
			t.Errorf("%s: AWS got the writes %q, want a detach %v", name, changes, want)
		}
		if wrote := r.writes(m.id, "web-"+m.id); wrote != "create pods/eviction, patch nodes" {
			t.Errorf("%s: the handler did %q", name, wrote)
		}
	}
}

// TestGroupContention: the detach from a busy group is retried during the drain until the end of work.
func TestGroupContention(t *testing.T) {
	t.Parallel()
	type busy struct {
		*fixture
		target
		detaches int // the number that fail
		age      time.Duration
		ended    <-chan fakelambda.Result
	}
	all := map[string]*busy{"for a while": {detaches: 7, age: time.Second},
		"until the end": {detaches: -1, age: 112 * time.Second}}
	for _, b := range all {
		b.fixture = newSerialFixture(t)
		b.target = b.targets(1)[0]
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
		if tries < 4 || tags != 3 || inst.Tags[spot.TagDetached] != b.target.group {
			t.Errorf("%s: %d detaches and %d CreateTags: %v", name, tries, tags, inst.Tags)
		}
		if *out.Timings.LastEviction-*out.Timings.Started > 5 {
			t.Errorf("%s: the pod was evicted only after %v s", name, *out.Timings.LastEviction)
		}
		switch {
		case b.detaches < 0:
			if got.Action != spot.ReplaceNone || !strings.Contains(got.Reason, "ResourceContention") ||
				b.detached() != 0 {
				t.Errorf("%s: %+v", name, got)
			}
		case got.Action != spot.ReplaceDetach || tries != b.detaches+1 || b.detached() != 1:
			t.Errorf("%s: %d attempts, %d detaches: %+v", name, tries, b.detached(), got)
		case *out.Timings.Empty > *got.At:
			t.Errorf("%s: the drain waited for the group: empty after %v s, detached after %v s", name,
				*out.Timings.Empty, *got.At)
		}
	}
}

// TestGroupDeniesDetach: the detach is retried until some seconds after the drain. The tags stay and do not keep the
// next invocation from detaching the instance.
func TestGroupDeniesDetach(t *testing.T) {
	r := newFixture(t)
	m := r.targets(1)[0]
	s := r.service()
	in := r.warning(spot.SpotTerminate, m.id, time.Second)
	r.aws.Fail("DetachInstances", -1, spottest.Denied())
	out := r.outcome(<-r.start(s, in), spot.Drained)
	r.aws.Heal()
	if out.Replacement.Action != spot.ReplaceNone ||
		!strings.Contains(out.Replacement.Reason, "autoscaling:DetachInstances") {
		t.Errorf("%+v", out.Replacement)
	}
	if inst, _ := r.aws.Instance(m.id); inst.Tags[spot.TagDetached] != m.group ||
		inst.Tags[spot.TagInterruptedAt] == "" {
		t.Errorf("its tags are %v", inst.Tags)
	}
	if out = r.outcome(<-r.start(s, in), spot.Drained); out.Replacement.Action != spot.ReplaceDetach {
		t.Errorf("%+v", out.Replacement)
	}
	if n := r.detached(); n != 1 {
		t.Errorf("%d detaches", n)
	}
}

// TestGroupResponseIsLost: a detach whose response is lost counts as done.
func TestGroupResponseIsLost(t *testing.T) {
	r := newFixture(t)
	m := r.targets(1)[0]
	r.aws.Fail("DetachInstances", 1, spottest.AnswerLost())
	out := r.handle(r.warning(spot.SpotTerminate, m.id, time.Second), spot.Drained)
	if out.Replacement.Action != spot.ReplaceDetach || out.Replacement.At == nil {
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
