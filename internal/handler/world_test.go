package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// world is a cluster with one interrupted node among others, the account it runs in, and the handler for it. It lives
// in a bubble: two minutes pass in no time.
type world struct {
	*testing.T
	cluster *spottest.Cluster
	aws     *spottest.AWS
	handler *handler.Handler
	event   time.Time
}

// inWorld runs test in a bubble with a new world.
func inWorld(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, cluster: spottest.NewCluster(), aws: spottest.NewAWS("us-east-1"), event: time.Now().UTC().Truncate(time.Second)}
		tags := map[string]string{spot.TagCluster: cluster}
		w.aws.AddGroup(spottest.Group{Name: group, Min: 2, Max: 2, Desired: 2, Tags: tags, Spot: true, LaunchTime: 20 * time.Second, DetachTime: time.Second},
			spottest.Instance{ID: instance, PrivateIP: "10.0.1.2", Spot: true}, spottest.Instance{ID: "i-0aaaaaaaaaaaaaaa0"})
		w.cluster.AddNode(node(instance))
		w.cluster.AddNode(node("i-0aaaaaaaaaaaaaaa0"))
		w.handler = &handler.Handler{Cluster: w.cluster, Cloud: w.aws.Cloud(), Policy: spot.DefaultPolicy(cluster)}
		test(w)
		for _, s := range w.cluster.Shortenings() {
			t.Errorf("the grace period of %s was cut from %s to %s", s.Pod, s.From, s.To)
		}
	})
}

func node(id string) spot.Node {
	return spot.Node{Name: id, ProviderID: "aws:///us-east-1a/" + id}
}

// pod adds a pod of a Deployment that starts another elsewhere.
func (w *world) pod(name string, change ...func(*spottest.Pod)) spot.Pod {
	owner := name[:strings.IndexByte(name+"-", '-')]
	p := spottest.Pod{Node: instance, Exit: 3 * time.Second, Replacement: &spottest.Replacement{Node: "i-0aaaaaaaaaaaaaaa0", Ready: 5 * time.Second},
		Pod: spot.Pod{Namespace: "default", Name: name, GracePeriod: 30 * time.Second, Owner: spot.Owner{Kind: "ReplicaSet", Name: owner, UID: owner}}}
	for _, c := range change {
		c(&p)
	}
	return w.cluster.AddPod(p)
}

// guard puts a budget on the pods of an owner.
func (w *world) guard(owner string, available int) {
	w.cluster.AddBudget(spottest.Budget{Name: owner, Owner: owner, Available: available})
}

func (w *world) warning(kind spot.Kind) spot.Interruption {
	return spot.Interruption{EventID: "e1", Kind: kind, Instance: instance, Region: "us-east-1", Time: w.event}
}

// handle handles the terminate warning and demands the result.
func (w *world) handle(want spot.Result) spot.Outcome {
	w.Helper()
	return w.handleEvent(w.warning(spot.SpotTerminate), want)
}

func (w *world) handleEvent(in spot.Interruption, want spot.Result) spot.Outcome {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 15*time.Minute)
	defer cancel()
	out, err := w.handler.Handle(ctx, in)
	if err != nil {
		w.Fatal(err)
	}
	if out.Result != want {
		w.Fatalf("the result is %s, want %s: %s", out.Result, want, told(out))
	}
	roundTrip(w.T, out)
	return out
}

// roundTrip demands that nothing of an outcome is lost in its JSON.
func roundTrip(t *testing.T, out spot.Outcome) {
	t.Helper()
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var back spot.Outcome
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out, back) {
		t.Errorf("the outcome changed on its way through JSON:\n%s\n%s", told(out), told(back))
	}
}

func told(out spot.Outcome) string {
	b, _ := json.MarshalIndent(out, "", " ")
	return string(b)
}

// ended is how a pod was ended; it must have been.
func (w *world) ended(name string) spottest.Termination {
	w.Helper()
	for _, e := range w.cluster.Terminations() {
		if e.Pod == "default/"+name {
			return e
		}
	}
	w.Fatalf("%s never got SIGTERM", name)
	return spottest.Termination{}
}

// after demands that something happened so long after the event.
func (w *world) after(what string, at time.Time, want time.Duration) {
	w.Helper()
	if got := at.Sub(w.event); got < want-time.Second || got > want+time.Second {
		w.Errorf("%s came %s after the event, want about %s", what, got, want)
	}
}

// pods are the ends of an outcome's pods by name.
func ends(out spot.Outcome) map[string]spot.PodStatus {
	m := map[string]spot.PodStatus{}
	for _, p := range out.Pods {
		m[p.Name] = p.Status
	}
	return m
}

func podResult(t *testing.T, out spot.Outcome, name string) spot.PodResult {
	t.Helper()
	for _, p := range out.Pods {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("nothing is told of %s", name)
	return spot.PodResult{}
}

// wrote demands that nothing, or just these requests, changed anything.
func (w *world) wrote(kube, aws int) {
	w.Helper()
	if n := w.cluster.Count("patch", "nodes") + w.cluster.Count("create", "pods/eviction") + w.cluster.Count("delete", "pods"); n != kube {
		w.Errorf("%d writes to the cluster, want %d", n, kube)
	}
	if n := len(w.aws.Calls("CreateTags", "DetachInstances")); n != aws {
		w.Errorf("%d writes to AWS, want %d: %v", n, aws, w.aws.Calls())
	}
}
