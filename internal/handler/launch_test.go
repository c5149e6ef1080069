package handler_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const noCapacity = "InsufficientInstanceCapacity - There is no Spot capacity available"

// failedLaunch is an event about the group from now.
func failedLaunch(group string) spot.Interruption {
	return spot.Interruption{EventID: "e2", Kind: spot.LaunchFailed, Region: "us-east-1", Time: time.Now(), Group: group, Message: noCapacity}
}

// detachWithoutReplacement handles a warning for an instance whose group can launch nothing.
func (w *world) detachWithoutReplacement() {
	w.aws.SetGroup(group, func(g *spottest.Group) { g.LaunchError = noCapacity })
	w.handle(spot.Drained)
	time.Sleep(5 * time.Second)
}

// wantLaunchCalls checks the reads of AWS, and that there were no other requests.
func (w *world) wantLaunchCalls(awsBefore, clusterBefore, groups, instances int) {
	w.Helper()
	count := map[string]int{}
	for _, c := range w.aws.Calls()[awsBefore:] {
		count[c.Operation]++
	}
	if len(w.aws.Calls())-awsBefore != groups+instances || count["DescribeAutoScalingGroups"] != groups ||
		count["DescribeInstances"] != instances || len(w.cluster.Requests()) != clusterBefore {
		w.Errorf("got the calls %v and %d requests to the cluster, want %d and %d calls and no request",
			count, len(w.cluster.Requests())-clusterBefore, groups, instances)
	}
}

func TestReplacementFailed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.detachWithoutReplacement()
		in := failedLaunch(group)
		aws, requests := len(w.aws.Calls()), len(w.cluster.Requests())
		out := w.handleEvent(in, spot.ReplacementFailed)
		w.wantLaunchCalls(aws, requests, 1, 1)
		want := spot.FailedLaunch{Message: noCapacity, Desired: 2, Present: 1, Detached: []string{instance}}
		if !reflect.DeepEqual(*out.FailedLaunch, want) || out.Event.Group != group || out.Event.Instance != "" ||
			out.Reason != "group "+group+" has 1 of 2 instances and could not launch another: "+noCapacity {
			t.Errorf("got %s, want %+v", toJSON(out), want)
		}
		preview, err := w.handler.Preview(w.Context(), in)
		preview.Timings, out.Timings = spot.Timings{}, spot.Timings{}
		if err != nil || !reflect.DeepEqual(preview, out) {
			t.Errorf("preview: got %s, %v; want %s", toJSON(preview), err, toJSON(out))
		}
		in.Replayed = true
		w.handleEvent(in, spot.Expired)
	})
}

// TestOtherFailedLaunches: each condition of replacement-failed is missing once.
func TestOtherFailedLaunches(t *testing.T) {
	tag := func(w *world, key, value string) {
		if err := w.aws.CreateTags(w.Context(), []string{instance}, map[string]string{key: value}); err != nil {
			w.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		group             string // of the event; ours by default
		setup             func(w *world)
		early             time.Duration // of the event's time
		groups, instances int           // calls
		reason            string
	}{
		"another cluster's name": {group: "nodes.test.example.com", reason: "does not end with ." + cluster},
		// Group nodes of cluster x.prod.example.com has a name of this cluster, too.
		"another cluster's group with our suffix": {group: "nodes.x." + cluster, groups: 1, reason: "does not have the tag",
			setup: func(w *world) {
				w.aws.AddGroup(spottest.Group{Name: "nodes.x." + cluster, LaunchError: noCapacity, Desired: 1, Max: 1,
					Tags: map[string]string{spot.TagCluster: "x." + cluster}})
				tag(w, spot.TagDetached, "nodes.x."+cluster)
			}},
		"a deleted group": {group: "gone." + cluster, groups: 1, reason: "no longer exists"},
		"launched since then": {groups: 1, reason: "has 2 of 2 instances",
			setup: func(w *world) { w.aws.SetGroup(group, func(g *spottest.Group) { g.LaunchError = "" }) }},
		"in a group that wants fewer": {groups: 1, reason: "has 1 of 1 instances",
			setup: func(w *world) { w.aws.SetGroup(group, func(g *spottest.Group) { g.Desired = 1 }) }},
		"detached from another group": {groups: 1, instances: 1, reason: "none of our instances",
			setup: func(w *world) { tag(w, spot.TagDetached, "others."+cluster) }},
		"detached by somebody else": {groups: 1, instances: 1, reason: "none of our instances",
			setup: func(w *world) { tag(w, spot.TagInterruptedAt, "") }},
		"detached from another cluster's node": {groups: 1, instances: 1, reason: "none of our instances",
			setup: func(w *world) { tag(w, spot.TagCluster, "x."+cluster) }},
		"more than 15 minutes after the detach": {groups: 1, instances: 1, reason: "none of our instances",
			setup: func(w *world) { time.Sleep(time.Until(w.event.Add(15*time.Minute + time.Second))) }},
		"before the detach": {groups: 1, instances: 1, early: time.Minute, reason: "none of our instances"},
	} {
		subtest(t, name, func(w *world) {
			w.detachWithoutReplacement()
			if c.setup != nil {
				c.setup(w)
			}
			in := failedLaunch(group)
			if c.group != "" {
				in.Group = c.group
			}
			in.Time = in.Time.Add(-c.early)
			aws, requests := len(w.aws.Calls()), len(w.cluster.Requests())
			out := w.handleEvent(in, spot.Ignored)
			w.wantLaunchCalls(aws, requests, c.groups, c.instances)
			if !strings.Contains(out.Reason, c.reason) || out.Event.Group != in.Group || out.FailedLaunch != nil {
				t.Errorf("got %s, want %q", toJSON(out), c.reason)
			}
		})
	}
}

// TestFailedLaunchWithoutAWS: AWS gets 20 s; then Lambda retries.
func TestFailedLaunchWithoutAWS(t *testing.T) {
	for operation, doing := range map[string]string{
		"DescribeAutoScalingGroups": "describing Auto Scaling group " + group,
		"DescribeInstances":         "describing instances detached from Auto Scaling group " + group,
	} {
		for name, fault := range map[string]spottest.Fault{"throttled": spottest.Throttled(), "denied": spottest.Denied()} {
			subtest(t, operation+" "+name, func(w *world) {
				w.detachWithoutReplacement()
				w.aws.Fail(operation, -1, fault)
				in := failedLaunch(group)
				w.wantError(w.timeout(15*time.Minute), in, doing)
				if took := time.Since(in.Time); took < 19*time.Second || took > 26*time.Second {
					t.Errorf("took %s, want 20 s", took)
				}
				w.aws.Heal()
				w.aws.Fail(operation, 3, fault)
				w.handleEvent(in, spot.ReplacementFailed)
			})
		}
	}
}
