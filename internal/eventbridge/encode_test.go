package eventbridge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// example returns an interruption of the kind with all fields that its event has.
func example(kind spot.Kind) spot.Interruption {
	in := spot.Interruption{EventID: "e", Kind: kind, Instance: instance, Account: "123456789012", Region: "eu-west-1",
		Time: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
	switch kind {
	case spot.LifecycleTerminate:
		in.Action = spot.Action{Group: "nodes.example.com", Hook: "drain", Token: "t-1", Instance: instance}
	case spot.ScheduledChange:
		in.Start = time.Date(2026, 2, 8, 4, 5, 6, 0, time.UTC)
	case spot.StateChange:
		in.State = "terminated"
	case spot.LaunchFailed:
		in.Instance, in.Group, in.Message = "", "nodes.example.com", "There is no Spot capacity."
	}
	return in
}

var rehearsed = []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate, spot.Rebalance}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	kinds := append([]spot.Kind{spot.LifecycleTerminate, spot.ScheduledChange, spot.StateChange, spot.LaunchFailed},
		rehearsed...)
	var all []spot.Interruption
	for _, kind := range kinds {
		in := example(kind)
		all = append(all, in)
		in.Replayed = true
		all = append(all, in)
		if slices.Contains(rehearsed, kind) {
			in.Rehearsal = true
			all = append(all, in)
		}
	}
	for _, state := range []string{"running", "stopping", "stopped", "shutting-down"} {
		in := example(spot.StateChange)
		in.State = state
		all = append(all, in)
	}
	tokenless := example(spot.LifecycleTerminate)
	tokenless.Action.Token = ""
	for _, want := range append(all, tokenless) {
		event, err := eventbridge.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got := decode(t, event)
		if got.ID != want.EventID || len(got.Interruptions) != 1 || got.Interruptions[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// TestEncodeMatchesSamples: an encoded event has every field of AWS's sample, with the same JSON type, except for
// optional fields.
func TestEncodeMatchesSamples(t *testing.T) {
	t.Parallel()
	optional := []string{".detail.NotificationMetadata", ".detail.endTime", ".detail.eventMetadata", ".detail.personas",
		".detail.actionability",
		".detail.affectedEntities.lastUpdatedTime", ".detail.affectedEntities.tags"}
	for name, kind := range map[string]spot.Kind{
		"spot-interruption-terminate": spot.SpotTerminate, "spot-interruption-stop": spot.SpotStop,
		"spot-interruption-hibernate": spot.SpotHibernate,
		"rebalance-recommendation":    spot.Rebalance, "state-change-terminated": spot.StateChange,
		"asg-terminate-lifecycle": spot.LifecycleTerminate, "health-scheduled-change": spot.ScheduledChange,
		"launch-unsuccessful": spot.LaunchFailed,
	} {
		event, err := eventbridge.Encode(example(kind))
		if err != nil {
			t.Fatal(err)
		}
		want, got := form(t, sample(t, name)), form(t, event)
		for _, field := range optional {
			delete(want, field)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// form returns the JSON type of each field of an event, and the values of detail-type and source.
func form(t *testing.T, event []byte) map[string]string {
	t.Helper()
	var v any
	if err := json.Unmarshal(event, &v); err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				walk(path+"."+key, inner)
			}
			if len(v) > 0 {
				return
			}
		case []any:
			for _, inner := range v {
				walk(path, inner)
			}
			return
		}
		fields[path] = fmt.Sprintf("%T", v)
		if path == ".detail-type" || path == ".source" {
			fields[path] = v.(string)
		} else if v == "" {
			fields[path] = "nothing"
		}
	}
	walk("", v)
	return fields
}

func TestRehearsalsUseCustomSource(t *testing.T) {
	t.Parallel()
	for _, kind := range rehearsed {
		in := example(kind)
		in.Rehearsal = true
		event, err := eventbridge.Encode(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := form(t, event)[".source"]; got != eventbridge.SourceRehearsal {
			t.Errorf("%s: sent by %s", kind, got)
		}
	}
}

func TestEncodeErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind   spot.Kind
		change func(*spot.Interruption)
		want   string
	}{
		"a kind without an event": {"earthquake", func(*spot.Interruption) {}, `no event has the kind "earthquake"`},
		"no kind":                 {"", func(*spot.Interruption) {}, "no event"},
		"a rehearsed lifecycle action": {spot.LifecycleTerminate, func(in *spot.Interruption) { in.Rehearsal = true },
			"cannot rehearse the kind"},
		"a rehearsed scheduled change": {spot.ScheduledChange, func(in *spot.Interruption) { in.Rehearsal = true },
			"cannot rehearse the kind"},
		"a rehearsed state change": {spot.StateChange, func(in *spot.Interruption) { in.Rehearsal = true },
			"cannot rehearse the kind"},
		"a change that never starts": {spot.ScheduledChange, func(in *spot.Interruption) { in.Start = time.Time{} },
			"a start time"},
		"a change without a state": {spot.StateChange, func(in *spot.Interruption) { in.State = "" }, `state is ""`},
		"a rehearsed failed launch": {spot.LaunchFailed, func(in *spot.Interruption) { in.Rehearsal = true },
			"cannot rehearse the kind"},
		"a launch without a group":   {spot.LaunchFailed, func(in *spot.Interruption) { in.Group = "" }, "a group and a message"},
		"a launch without a message": {spot.LaunchFailed, func(in *spot.Interruption) { in.Message = "" }, "a group and a message"},
		"an action without a hook": {spot.LifecycleTerminate, func(in *spot.Interruption) { in.Action.Hook = "" },
			"a hook (\"\")"},
		"an action without a group": {spot.LifecycleTerminate, func(in *spot.Interruption) { in.Action.Group = "" },
			"a group (\"\")"},
		"an action of another instance": {spot.LifecycleTerminate,
			func(in *spot.Interruption) { in.Action.Instance = "i-0000000000000000f" }, "the lifecycle action is for"},
	} {
		t.Run(name, func(t *testing.T) {
			in := example(c.kind)
			c.change(&in)
			event, err := eventbridge.Encode(in)
			if err == nil || !strings.HasPrefix(err.Error(), "encoding the event e: ") ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v; want %q", event, err, c.want)
			}
		})
	}
}

// TestOwnEvents checks that a notification has no effect if it reaches the function.
func TestOwnEvents(t *testing.T) {
	for _, name := range []spot.NotificationName{spot.NotificationStarted, spot.NotificationFinished} {
		event := fmt.Sprintf(`{"id": "e1", "source": %q, "detail-type": %q, "time": "2026-02-03T04:05:06Z", "detail": {}}`, spot.NotificationSource, name)
		var unknown *eventbridge.UnknownError
		if _, err := eventbridge.Decode([]byte(event)); !errors.As(err, &unknown) {
			t.Errorf("%s: got %v, want an UnknownError", name, err)
		}
	}
}
