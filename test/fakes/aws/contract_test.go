package aws_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	region  = "eu-west-1"
	cluster = "example.com"
	nodes   = "nodes.example.com"

	nowhere = "i-0123456789abcdef0" // valid, but does not exist
)

// cloud has all methods of a Cloud.
type cloud interface {
	spot.Cloud
	Readable(ctx context.Context, cluster string) error
	InstancesOf(ctx context.Context, ids []string) (map[string]spot.Instance, error)
}

// world is an AWS with a group of three, which has the tag KubernetesCluster, a terminating hook of a minute and a
// launching hook, and two more instances. members reads the group without the Cloud under test.
type world struct {
	cloud   cloud
	made    time.Time                // creation time
	spotted string                   // a member, on Spot
	plain   string                   // a member
	standby string                   // a member in Standby
	loner   string                   // in no group, on demand
	sleeper string                   // in no group, and can hibernate
	members func() map[string]string // instance to LifecycleState
	desired func() int
	suspend func(processes ...string)       // only these
	end     func(member string) spot.Action // starts the termination of a member, which its hook holds; may be nil

	terminate func(id string)

	deviates map[string]bool // deviations of this AWS from the real one
	seen     map[string]bool
}

// wants checks the error of a call: want, as AWS documents it, or success where this AWS deviates.
func (w *world) wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if w.differs(what) {
		want = nil
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// differs reports whether this AWS deviates.
func (w *world) differs(what string) bool {
	w.seen[what] = w.deviates[what]
	return w.deviates[what]
}

// contract checks a Cloud on an AWS without faults.
func contract(t *testing.T, w *world) {
	ctx := t.Context()
	w.seen = map[string]bool{}

	t.Run("instance", func(t *testing.T) {
		i, err := w.cloud.Instance(ctx, w.spotted)
		if err != nil {
			t.Fatal(err)
		}
		if i.ID != w.spotted || i.State != "running" || !i.Spot || i.Type == "" || i.Zone != region+"a" ||
			i.Tags[spot.TagCluster] != cluster {
			t.Errorf("got %+v", i)
		}
		if want := "ip-" + strings.ReplaceAll(i.PrivateIP, ".",
			"-") + "." + region + ".compute.internal"; i.PrivateIP == "" || i.PrivateDNSName != want {
			t.Errorf("IP address %q, name %q, want %q", i.PrivateIP, i.PrivateDNSName, want)
		}
		i, err = w.cloud.Instance(ctx, w.loner)
		if err != nil || i.Spot || i.Hibernates {
			t.Errorf("on demand: %+v, %v", i, err)
		}
		i, err = w.cloud.Instance(ctx, w.sleeper)
		if err != nil || !i.Hibernates {
			t.Errorf("with hibernation: %+v, %v", i, err)
		}
		_, err = w.cloud.Instance(ctx, nowhere)
		w.wants(t, "instance of an unknown ID", err, spot.ErrNotFound)
	})

	t.Run("instances at once", func(t *testing.T) {
		found, err := w.cloud.InstancesOf(ctx, []string{w.spotted, nowhere, w.loner})
		if err != nil || len(found) != 2 {
			t.Errorf("found %+v, %v", found, err)
		}
		for _, id := range []string{w.spotted, w.loner} {
			if i, err := w.cloud.Instance(ctx, id); err != nil || !reflect.DeepEqual(found[id], i) {
				t.Errorf("found %+v, alone %+v, %v", found[id], i, err)
			}
		}
		if found, err := w.cloud.InstancesOf(ctx, nil); err != nil || len(found) != 0 {
			t.Errorf("without IDs: %+v, %v", found, err)
		}
		if err := w.cloud.Readable(ctx, cluster); err != nil {
			t.Errorf("readable: %v", err)
		}
	})

	t.Run("membership", func(t *testing.T) {
		m, err := w.cloud.Membership(ctx, w.spotted)
		if err != nil {
			t.Fatal(err)
		}
		if m.Group != nodes || m.LifecycleState != "InService" || m.GroupTags[spot.TagCluster] != cluster ||
			len(m.Suspended) != 0 ||
			!slices.Equal(m.TerminateHooks, []string{"drain"}) {
			t.Errorf("got %+v", m)
		}
		if m, err := w.cloud.Membership(ctx, w.standby); err != nil || m.LifecycleState != "Standby" {
			t.Errorf("in standby: %+v, %v", m, err)
		}
		w.suspend("Launch", "AZRebalance")
		if m, err := w.cloud.Membership(ctx, w.spotted); err != nil ||
			!slices.Equal(slices.Sorted(slices.Values(m.Suspended)), []string{"AZRebalance", "Launch"}) {
			t.Errorf("suspended: %+v, %v", m, err)
		}
		w.suspend()
		for _, id := range []string{w.loner, nowhere} {
			_, err := w.cloud.Membership(ctx, id)
			w.wants(t, "membership of "+id, err, spot.ErrNotFound)
		}
	})

	t.Run("group", func(t *testing.T) {
		g, err := w.cloud.Group(ctx, nodes)
		if err != nil || g.Name != nodes || g.Tags[spot.TagCluster] != cluster || g.Desired != 2 || g.Present != 2 {
			t.Errorf("got %+v, %v", g, err) // without the member in Standby
		}
		_, err = w.cloud.Group(ctx, "x")
		w.wants(t, "unknown group", err, spot.ErrNotFound)
	})

	t.Run("tags", func(t *testing.T) {
		before, err := w.cloud.Instance(ctx, w.plain)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // may be repeated
			if err := w.cloud.Tag(ctx, w.plain, map[string]string{"a": "1", "b": ""}); err != nil {
				t.Error(err)
			}
		}
		want := maps.Clone(before.Tags)
		want["a"], want["b"] = "1", ""
		if after, err := w.cloud.Instance(ctx, w.plain); err != nil || !maps.Equal(after.Tags, want) {
			t.Errorf("tagged: %v, %v; want %v", after.Tags, err, want)
		}
		detached := map[string]string{spot.TagDetached: "a.example.com", spot.TagInterruptedAt: "2026-01-01T00:00:00Z"}
		if err := w.cloud.Tag(ctx, w.loner, detached); err != nil {
			t.Error(err)
		}
		if found, err := w.cloud.DetachedFrom(ctx, "a.example.com"); err != nil || len(found) != 1 ||
			found[0].ID != w.loner || !maps.Equal(found[0].Tags, detached) {
			t.Errorf("detached: %+v, %v", found, err)
		}
		if found, err := w.cloud.DetachedFrom(ctx, nodes); err != nil || len(found) != 0 {
			t.Errorf("detached from another group: %+v, %v", found, err)
		}
		w.wants(t, "tag on an unknown instance", w.cloud.Tag(ctx, nowhere, map[string]string{"a": ""}),
			spot.ErrNotFound)
	})

	var other string // launched in place of the detached one
	t.Run("detach", func(t *testing.T) {
		before, desired := w.members(), w.desired()
		w.wants(t, "detach of a non-member", w.cloud.Detach(ctx, w.loner, nodes), spot.ErrPermanent)
		if after := w.members(); !maps.Equal(after, before) {
			t.Errorf("members %v, before %v", after, before)
		}
		if err := w.cloud.Detach(ctx, w.spotted, nodes); err != nil {
			t.Fatal(err)
		}
		w.wants(t, "detach again", w.cloud.Detach(ctx, w.spotted, nodes), spot.ErrPermanent)
		eventually(t, "the instance is in no group", func() bool {
			_, err := w.cloud.Membership(ctx, w.spotted)
			return errors.Is(err, spot.ErrNotFound)
		})
		w.wants(t, "detach long after", w.cloud.Detach(ctx, w.spotted, nodes), spot.ErrPermanent)
		if w.desired() != desired {
			t.Errorf("desired capacity %d, before %d", w.desired(), desired)
		}
		eventually(t, "one other instance is in service", func() bool { return inService(w.members(), before) == 1 })
		for id := range w.members() {
			if _, old := before[id]; !old {
				other = id
			}
		}

		i, err := w.cloud.Instance(ctx, w.spotted)
		if err != nil || i.State != "running" || i.Tags[spot.TagCluster] != cluster {
			t.Errorf("the detached instance: %+v, %v; it must keep running, with its cluster's tag", i, err)
		}
		if _, ok := i.Tags["aws:autoscaling:groupName"]; ok != w.differs("a detached instance keeps its group's name") {
			t.Errorf("tags of the detached instance: %v", i.Tags)
		}
	})

	t.Run("lifecycle action", func(t *testing.T) {
		h, err := w.cloud.Hook(ctx, nodes, "drain")
		global := 100 * time.Minute
		if w.differs("a hook's global timeout is always 48 hours") {
			global = 48 * time.Hour
		}
		if err != nil || h != (spot.Hook{Heartbeat: time.Minute, Global: global}) {
			t.Errorf("got %+v, %v", h, err)
		}
		_, err = w.cloud.Hook(ctx, nodes, "x")
		w.wants(t, "unknown hook", err, spot.ErrNotFound)

		if w.end == nil {
			return
		}
		act := w.end(other)
		if m, err := w.cloud.Membership(ctx, other); err != nil || m.LifecycleState != "Terminating:Wait" {
			t.Errorf("membership %+v, %v", m, err)
		}
		for range 2 { // as often as needed
			w.wants(t, "heartbeat", w.cloud.Heartbeat(ctx, act), nil)
		}
		bad := act
		bad.Token = "00000000-0000-0000-0000-000000000000"
		w.wants(t, "heartbeat of an unknown token", w.cloud.Heartbeat(ctx, bad), spot.ErrPermanent)
		w.wants(t, "completion of an unknown token", w.cloud.Complete(ctx, bad), spot.ErrPermanent)
		w.wants(t, "completion", w.cloud.Complete(ctx, act), nil)
		w.wants(t, "completion again", w.cloud.Complete(ctx, act), spot.ErrPermanent)
		w.wants(t, "heartbeat after the completion", w.cloud.Heartbeat(ctx, act), spot.ErrPermanent)
		eventually(t, "the instance is in no group, and terminated", func() bool {
			_, err := w.cloud.Membership(ctx, other)
			i, _ := w.cloud.Instance(ctx, other)
			return errors.Is(err, spot.ErrNotFound) && i.State == "terminated"
		})
	})

	t.Run("detach from standby", func(t *testing.T) {
		if err := w.cloud.Detach(ctx, w.standby, nodes); err != nil {
			t.Error(err)
		}
		eventually(t, "the instance is in no group", func() bool {
			_, err := w.cloud.Membership(ctx, w.standby)
			return errors.Is(err, spot.ErrNotFound)
		})
	})

	t.Run("a terminated instance", func(t *testing.T) {
		w.terminate(w.sleeper)
		var i spot.Instance
		eventually(t, "the instance is terminated", func() (is bool) {
			i, _ = w.cloud.Instance(ctx, w.sleeper)
			return i.State == "terminated"
		})
		if (i.PrivateDNSName == "" && i.PrivateIP == "") == w.differs("a terminated instance keeps its name and address") {
			t.Errorf("terminated: %+v", i)
		}
	})

	for what := range w.deviates {
		if !w.seen[what] {
			t.Errorf("listed as a deviation, but nothing asserts it: %s", what)
		}
	}
}

// inService counts the members in service that were not members before.
func inService(members, before map[string]string) int {
	n := 0
	for id, state := range members {
		if _, old := before[id]; !old && state == "InService" {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out after 30 s waiting for: %s", what)
		}
	}
}
