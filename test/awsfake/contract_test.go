package awsfake_test

import (
	"context"
	"errors"
	"maps"
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

	nowhere   = "i-0123456789abcdef0" // well formed, and nobody's
	malformed = "i-nonsense"
)

// world is an AWS with a group of three: its tag KubernetesCluster, a hook for the end of an instance and one for its
// launch; and an instance beside it. Its members are seen past the Cloud that is tested.
type world struct {
	cloud   spot.Cloud
	spotted string                   // a member, on Spot
	plain   string                   // a member
	standby string                   // a member on Standby
	loner   string                   // in no group, on demand
	members func() map[string]string // instance to LifecycleState
	desired func() int
	suspend func(processes ...string) // these and no others

	// deviates names what this AWS does otherwise than the real one, with what it does instead: nil is success.
	deviates map[string]error
	seen     map[string]bool
}

// wants asserts what a call returned: want as AWS documents it, or exactly the deviation.
func (w *world) wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if instead, ok := w.deviates[what]; ok {
		w.seen[what] = true
		want = instead
	}
	if want == errAgain {
		if err == nil || errors.Is(err, spot.ErrFinal) || errors.Is(err, spot.ErrNotFound) {
			t.Errorf("%s: %v, want an error that is worth another try", what, err)
		}
		return
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// errAgain stands for every error that is worth another try.
var errAgain = errors.New("worth another try")

// differs reports whether this AWS deviates, for what is no error.
func (w *world) differs(what string) bool {
	_, ok := w.deviates[what]
	w.seen[what] = ok
	return ok
}

// contract is what spot.Cloud promises, on an AWS that behaves.
func contract(t *testing.T, w *world) {
	ctx := t.Context()
	w.seen = map[string]bool{}

	t.Run("instance", func(t *testing.T) {
		i, err := w.cloud.Instance(ctx, w.spotted)
		if err != nil {
			t.Fatal(err)
		}
		if i.ID != w.spotted || i.State != "running" || !i.Spot || i.Tags[spot.TagCluster] != cluster {
			t.Errorf("got %+v", i)
		}
		if want := "ip-" + strings.ReplaceAll(i.PrivateIP, ".", "-") + "." + region + ".compute.internal"; i.PrivateIP == "" || i.PrivateDNSName != want {
			t.Errorf("IP address %q, name %q, want %q", i.PrivateIP, i.PrivateDNSName, want)
		}
		i, err = w.cloud.Instance(ctx, w.loner)
		if err != nil || i.Spot {
			t.Errorf("on demand: %+v, %v", i, err)
		}
	})

	t.Run("no instance", func(t *testing.T) {
		_, err := w.cloud.Instance(ctx, nowhere)
		w.wants(t, "instance of an unknown id", err, spot.ErrNotFound)
		_, err = w.cloud.Instance(ctx, malformed)
		w.wants(t, "instance of a malformed id", err, spot.ErrNotFound)
		code := "InvalidInstanceID.Malformed"
		if w.differs("code for a malformed id") {
			code = "InvalidInstanceID.NotFound"
		}
		if !strings.Contains(err.Error(), code) {
			t.Errorf("error %v, want %s", err, code)
		}
	})

	t.Run("membership", func(t *testing.T) {
		m, err := w.cloud.Membership(ctx, w.spotted)
		if err != nil {
			t.Fatal(err)
		}
		if m.Group != nodes || m.LifecycleState != "InService" || m.GroupTags[spot.TagCluster] != cluster || len(m.Suspended) != 0 ||
			!slices.Equal(m.TerminateHooks, []string{"drain"}) {
			t.Errorf("got %+v", m)
		}
		if m, err := w.cloud.Membership(ctx, w.standby); err != nil || m.LifecycleState != "Standby" {
			t.Errorf("on standby: %+v, %v", m, err)
		}
		w.suspend("Launch", "AZRebalance")
		if m, err := w.cloud.Membership(ctx, w.spotted); err != nil || !slices.Equal(slices.Sorted(slices.Values(m.Suspended)), []string{"AZRebalance", "Launch"}) {
			t.Errorf("suspended: %+v, %v", m, err)
		}
		w.suspend()
		for _, id := range []string{w.loner, nowhere, malformed} {
			_, err := w.cloud.Membership(ctx, id)
			w.wants(t, "membership of "+id, err, spot.ErrNotFound)
		}
	})

	t.Run("tags", func(t *testing.T) {
		before := tags(t, w.cloud, w.plain)
		for range 2 { // both may be repeated
			if err := w.cloud.Tag(ctx, w.plain, map[string]string{"a": "1", "b": ""}); err != nil {
				t.Error(err)
			}
		}
		want := maps.Clone(before)
		want["a"], want["b"] = "1", ""
		if got := tags(t, w.cloud, w.plain); !maps.Equal(got, want) {
			t.Errorf("tagged: %v, want %v", got, want)
		}
		for range 2 {
			if err := w.cloud.Untag(ctx, w.plain, []string{"a", "b"}); err != nil {
				t.Error(err)
			}
		}
		if got := tags(t, w.cloud, w.plain); !maps.Equal(got, before) {
			t.Errorf("untagged: %v, want %v", got, before)
		}
		w.wants(t, "tag on an unknown instance", w.cloud.Tag(ctx, nowhere, map[string]string{"a": ""}), spot.ErrNotFound)
		w.wants(t, "untag of an unknown instance", w.cloud.Untag(ctx, nowhere, []string{"a"}), spot.ErrNotFound)
		w.wants(t, "tag that only AWS may set", w.cloud.Tag(ctx, w.plain, map[string]string{"aws:a": ""}), spot.ErrFinal)
	})

	t.Run("no detach", func(t *testing.T) {
		before := w.members()
		w.wants(t, "detach of a non-member", w.cloud.Detach(ctx, w.loner, nodes), spot.ErrFinal)
		w.wants(t, "detach of an unknown instance", w.cloud.Detach(ctx, nowhere, nodes), spot.ErrFinal)
		w.wants(t, "detach from an unknown group", w.cloud.Detach(ctx, w.spotted, "x"), spot.ErrFinal)
		if after := w.members(); !maps.Equal(after, before) {
			t.Errorf("members %v, before %v", after, before)
		}
	})

	t.Run("detach", func(t *testing.T) {
		before, desired := w.members(), w.desired()
		if err := w.cloud.Detach(ctx, w.spotted, nodes); err != nil {
			t.Fatal(err)
		}
		w.wants(t, "detach again", w.cloud.Detach(ctx, w.spotted, nodes), spot.ErrFinal)
		eventually(t, "the instance is in no group", func() bool {
			_, err := w.cloud.Membership(ctx, w.spotted)
			return errors.Is(err, spot.ErrNotFound)
		})
		w.wants(t, "detach long after", w.cloud.Detach(ctx, w.spotted, nodes), spot.ErrFinal)
		if w.desired() != desired {
			t.Errorf("desired capacity %d, before %d", w.desired(), desired)
		}
		eventually(t, "one other instance is in service", func() bool { return inService(w.members(), before) == 1 })

		i, err := w.cloud.Instance(ctx, w.spotted)
		if err != nil || i.State != "running" || i.Tags[spot.TagCluster] != cluster {
			t.Errorf("the detached instance: %+v, %v; it must run on, with its cluster's tag", i, err)
		}
		if _, ok := i.Tags["aws:autoscaling:groupName"]; ok != w.differs("a detached instance keeps its group's name") {
			t.Errorf("tags of the detached instance: %v", i.Tags)
		}
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

	t.Run("detach while Launch is suspended", func(t *testing.T) {
		w.suspend("Launch")
		before := w.members()
		if err := w.cloud.Detach(ctx, w.plain, nodes); err != nil {
			t.Fatal(err)
		}
		want := 0
		if w.differs("a suspended group launches") {
			want = 1
		}
		time.Sleep(300 * time.Millisecond) // several times what a launch takes here
		if n := inService(w.members(), before); n != want {
			t.Errorf("%d new instances in service, want %d", n, want)
		}
	})

	t.Run("time is up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := w.cloud.Instance(ctx, w.loner)
		w.wants(t, "a context that has ended", err, context.Canceled)
	})

	for what := range w.deviates {
		if !w.seen[what] {
			t.Errorf("listed as a deviation, but nothing asserts it: %s", what)
		}
	}
}

func tags(t *testing.T, c spot.Cloud, id string) map[string]string {
	t.Helper()
	i, err := c.Instance(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return i.Tags
}

// inService counts the members in service that were none before.
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
			t.Fatalf("not so after 30 s: %s", what)
		}
	}
}
