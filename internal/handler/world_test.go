package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const (
	cluster  = "prod.example.com"
	instance = "i-0123456789abcdef0"
	group    = "nodes-us-east-1a." + cluster
	other    = "i-0aaaaaaaaaaaaaaa0" // another instance of the group
)

// world is a cluster with two nodes, one of which is interrupted, their AWS account, and the handler. It lives in a
// synctest bubble, where two minutes pass at once.
type world struct {
	*testing.T
	cluster *spottest.Cluster
	aws     *spottest.AWS
	handler *handler.Handler
	bus     *bus
	event   time.Time
}

// inWorld runs test in a new world, and checks that no request shortened a grace period.
func inWorld(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(w)
		for _, s := range w.cluster.Shortenings() {
			w.Errorf("pod %s: got grace period cut from %s to %s", s.Pod, s.From, s.To)
		}
	})
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, cluster: spottest.NewCluster(), aws: spottest.NewAWS("us-east-1"), bus: &bus{}}
	w.newEvent()
	w.aws.AddGroup(spottest.Group{Name: group, Min: 2, Max: 2, Desired: 2, Spot: true, LaunchTime: 20 * time.Second,
		DetachTime: time.Second, Tags: map[string]string{spot.TagCluster: cluster}},
		spottest.Instance{ID: instance, PrivateIP: "10.0.1.2", Spot: true}, spottest.Instance{ID: other})
	w.cluster.AddNode(newNode(instance, instance))
	w.cluster.AddNode(newNode(other, other))
	w.handler = &handler.Handler{Cluster: w.cluster, Cloud: w.aws.Cloud(), Policy: spot.DefaultPolicy(cluster), Publisher: w.bus}
	return w
}

// subtest runs inWorld as a subtest.
func subtest(t *testing.T, name string, test func(w *world)) {
	t.Run(name, func(t *testing.T) { inWorld(t, test) })
}

func newNode(name, instance string) spot.Node {
	return spot.Node{Name: name, ProviderID: "aws:///us-east-1a/" + instance}
}

// renameNode gives the interrupted node another name.
func (w *world) renameNode(name string) {
	w.cluster.RemoveNode(instance)
	w.cluster.AddNode(newNode(name, instance))
}

func (w *world) node() spot.Node {
	n, _ := w.cluster.Node(instance)
	return n
}

// sameNode compares two nodes except for their versions.
func sameNode(a, b spot.Node) bool {
	a.Version, b.Version = "", ""
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// newEvent sets the time of the event to now.
func (w *world) newEvent() { w.event = time.Now().UTC().Truncate(time.Second) }

func (w *world) warning(kind spot.Kind) spot.Interruption {
	return spot.Interruption{EventID: "e1", Kind: kind, Instance: instance, Region: "us-east-1", Time: w.event}
}

// foreignInstance adds an instance outside the cluster.
func (w *world) foreignInstance(state string, tags map[string]string) string {
	i := spottest.Instance{ID: "i-0cccccccccccccccc", State: state, Tags: tags, PrivateIP: "10.0.1.2"}
	return w.aws.AddInstance(i).ID
}

// pod adds a pod to the interrupted node. It is recreated on the other node.
func (w *world) pod(name string, options ...func(*spottest.Pod)) spot.Pod {
	owner, _, _ := strings.Cut(name, "-")
	p := spottest.Pod{Node: instance, Exit: 3 * time.Second,
		Replacement: &spottest.Replacement{Node: other, Ready: 5 * time.Second},
		Pod: spot.Pod{Namespace: "default", Name: name, GracePeriod: 30 * time.Second,
			Owner: spot.Owner{Kind: "ReplicaSet", Name: owner, UID: owner}}}
	for _, option := range options {
		option(&p)
	}
	return w.cluster.AddPod(p)
}

func grace(d time.Duration) func(*spottest.Pod) { return func(p *spottest.Pod) { p.GracePeriod = d } }
func exit(d time.Duration) func(*spottest.Pod)  { return func(p *spottest.Pod) { p.Exit = d } }
func notRecreated(p *spottest.Pod)              { p.Replacement = nil }
func terminating(p *spottest.Pod)               { p.Terminating = true }
func toleratesCordon(p *spottest.Pod)           { p.ToleratesCordon = true }
func daemonSet(p *spottest.Pod)                 { p.Owner.Kind, p.Replacement = "DaemonSet", nil }

func annotated(key, value string) func(*spottest.Pod) {
	return func(p *spottest.Pod) { p.Annotations = map[string]string{key: value} }
}

// budget adds a PodDisruptionBudget for the pods of an owner.
func (w *world) budget(owner string, available int) {
	w.cluster.AddBudget(spottest.Budget{Name: owner, Owner: owner, Available: available})
}

// handle handles a SpotTerminate warning and checks the result.
func (w *world) handle(want spot.Result) spot.Outcome {
	w.Helper()
	return w.handleEvent(w.warning(spot.SpotTerminate), want)
}

func (w *world) handleEvent(in spot.Interruption, want spot.Result) spot.Outcome {
	w.Helper()
	return w.handleIn(w.timeout(15*time.Minute), in, want)
}

func (w *world) handleIn(ctx context.Context, in spot.Interruption, want spot.Result) spot.Outcome {
	w.Helper()
	out, err := w.handler.Handle(ctx, in)
	if err != nil {
		w.Fatal(err)
	}
	if out.Result != want {
		w.Fatalf("got %s, want %s: %s", out.Result, want, toJSON(out))
	}
	w.roundTrip(out)
	return out
}

// timeout returns the context of an invocation that ends after d.
func (w *world) timeout(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}

// wantError handles an event and checks the parts of the error.
func (w *world) wantError(ctx context.Context, in spot.Interruption, parts ...string) {
	w.Helper()
	out, err := w.handler.Handle(ctx, in)
	if err == nil {
		w.Fatalf("got %s, want an error", toJSON(out))
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			w.Errorf("got error %q, want %q", err, part)
		}
	}
}

// roundTrip checks that an outcome survives its JSON.
func (w *world) roundTrip(out spot.Outcome) {
	w.Helper()
	b, err := json.Marshal(out)
	if err != nil {
		w.Fatal(err)
	}
	var got spot.Outcome
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		w.Fatal(err)
	}
	if !reflect.DeepEqual(got, out) {
		w.Errorf("outcome read from JSON: got %s, want %s", toJSON(got), toJSON(out))
	}
}

func toJSON(out spot.Outcome) string {
	b, _ := json.MarshalIndent(out, "", " ")
	return string(b)
}

// termination returns how a pod was terminated.
func (w *world) termination(name string) spottest.Termination {
	w.Helper()
	for _, e := range w.cluster.Terminations() {
		if e.Pod == "default/"+name {
			return e
		}
	}
	w.Fatalf("pod %s: got no SIGTERM", name)
	return spottest.Termination{}
}

// wantSIGTERM checks when a pod received SIGTERM.
func (w *world) wantSIGTERM(name string, after time.Duration) spottest.Termination {
	w.Helper()
	e := w.termination(name)
	w.wantAt("SIGTERM of "+name, e.SIGTERM, after)
	return e
}

// wantAt checks a time to within a second.
func (w *world) wantAt(what string, at time.Time, after time.Duration) {
	w.Helper()
	if got := at.Sub(w.event); got < after-time.Second || got > after+time.Second {
		w.Errorf("%s: got %s after the event, want %s", what, got, after)
	}
}

// wantStatus checks the status of a pod in the outcome.
func (w *world) wantStatus(out spot.Outcome, name string, want spot.PodStatus) spot.PodResult {
	w.Helper()
	for _, p := range out.Pods {
		if p.Name == name {
			if p.Status != want {
				w.Errorf("pod %s: got %+v, want %s", name, p, want)
			}
			return p
		}
	}
	w.Fatalf("pod %s is missing from %s", name, toJSON(out))
	return spot.PodResult{}
}

func (w *world) wantReplacement(out spot.Outcome, want spot.ReplaceAction) spot.ReplacementResult {
	w.Helper()
	if out.Replacement.Action != want {
		w.Errorf("replacement: got %+v, want %s", out.Replacement, want)
	}
	return *out.Replacement
}

// wantWrites checks the number of writes to the cluster, except Events, and to AWS.
func (w *world) wantWrites(cluster, aws int) {
	w.Helper()
	got := w.cluster.Count("patch", "nodes") + w.cluster.Count("create", "pods/eviction") +
		w.cluster.Count("delete", "pods")
	if got != cluster {
		w.Errorf("writes to the cluster: got %d, want %d", got, cluster)
	}
	w.wantAWSWrites(aws)
}

func (w *world) wantAWSWrites(want int) {
	w.Helper()
	if got := w.aws.Calls("CreateTags", "DetachInstances"); len(got) != want {
		w.Errorf("writes to AWS: got %v, want %d", got, want)
	}
}

func (w *world) wantRequests(verb, resource string, want int) {
	w.Helper()
	if got := w.cluster.Count(verb, resource); got != want {
		w.Errorf("%s %s: got %d requests, want %d", verb, resource, got, want)
	}
}
