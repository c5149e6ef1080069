package eventbridge_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

const instance = "i-1234567890abcdef0"

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changed returns a modified sample.
func changed(t testing.TB, name string, change func(event, detail map[string]any)) []byte {
	t.Helper()
	var event map[string]any
	if err := json.Unmarshal(sample(t, name), &event); err != nil {
		t.Fatal(err)
	}
	detail, _ := event["detail"].(map[string]any)
	change(event, detail)
	b, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, event []byte) eventbridge.Event {
	t.Helper()
	e, err := eventbridge.Decode(event)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// requireNoAction requires that the event needs no action, for the given reason.
func requireNoAction(t testing.TB, event []byte, want string) {
	t.Helper()
	e, err := eventbridge.Decode(event)
	var unknown *eventbridge.UnknownError
	if !errors.As(err, &unknown) || unknown.ID == "" || unknown.Source == "" || unknown.DetailType == "" {
		t.Fatalf("got %+v, %v; want nothing to do", e, err)
	}
	if !strings.Contains(err.Error(), want) ||
		(unknown.Reason == "") != strings.HasPrefix(err.Error(), "no rule for events of type") {
		t.Errorf("got %q (reason %q), want %q", err, unknown.Reason, want)
	}
}

// requireInvalid requires that the event is rejected as invalid.
func requireInvalid(t testing.TB, event []byte, want string) {
	t.Helper()
	e, err := eventbridge.Decode(event)
	var unknown *eventbridge.UnknownError
	if err == nil || errors.As(err, &unknown) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %+v, %v; want %q", e, err, want)
	}
}

// common returns an interruption with the fields that all samples share.
func common(in spot.Interruption) spot.Interruption {
	in.EventID, in.Account = "12345678-1234-1234-1234-123456789012", "123456789012"
	if in.Instance = instance; in.Kind == spot.LaunchFailed {
		in.Instance = ""
	}
	if in.Region == "" {
		in.Region = "us-east-1"
	}
	if in.Time.IsZero() {
		in.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return in
}

func TestDecodeSamples(t *testing.T) {
	t.Parallel()
	action := spot.Action{Group: "my-asg", Hook: "my-lifecycle-hook", Token: "87654321-4321-4321-4321-210987654321",
		Instance: instance}
	for name, want := range map[string]spot.Interruption{
		"spot-interruption-terminate":   {Kind: spot.SpotTerminate},
		"spot-interruption-stop":        {Kind: spot.SpotStop},
		"spot-interruption-hibernate":   {Kind: spot.SpotHibernate},
		"spot-interruption-doc-arn":     {Kind: spot.SpotTerminate, Region: "us-east-2"},
		"spot-interruption-replayed":    {Kind: spot.SpotTerminate, Replayed: true},
		"rebalance-recommendation":      {Kind: spot.Rebalance},
		"rehearsal-spot-terminate":      {Kind: spot.SpotTerminate, Rehearsal: true},
		"rehearsal-rebalance":           {Kind: spot.Rebalance, Rehearsal: true},
		"state-change-running":          {Kind: spot.StateChange, State: "running"},
		"state-change-stopping":         {Kind: spot.StateChange, State: "stopping"},
		"state-change-stopped":          {Kind: spot.StateChange, State: "stopped"},
		"state-change-shutting-down":    {Kind: spot.StateChange, State: "shutting-down"},
		"state-change-terminated":       {Kind: spot.StateChange, State: "terminated"},
		"asg-terminate-lifecycle":       {Kind: spot.LifecycleTerminate, Action: action},
		"asg-terminate-lifecycle-short": {Kind: spot.LifecycleTerminate, Action: action},
		"asg-from-warm-pool":            {Kind: spot.LifecycleTerminate, Action: action},
		"asg-to-warm-pool": {Kind: spot.LifecycleTerminate, Action: action,
			Time: time.Date(2026, 1, 1, 0, 0, 0, 214e6, time.UTC)},
		"launch-unsuccessful": {Kind: spot.LaunchFailed, Group: "my-asg", Message: "Could not launch Spot Instances. " +
			"InsufficientInstanceCapacity - There is no Spot capacity available that matches your request. " +
			"Launching EC2 instance failed."},
		"health-scheduled-change": {Kind: spot.ScheduledChange, Start: time.Date(2026, 1, 15, 7, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			want := common(want)
			got := decode(t, sample(t, name))
			if !reflect.DeepEqual(got, eventbridge.Event{ID: want.EventID, Interruptions: []spot.Interruption{want}}) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestDecodeNoAction(t *testing.T) {
	t.Parallel()
	as := func(source, detailType string) func(_, _ map[string]any) {
		return func(e, _ map[string]any) { e["source"], e["detail-type"] = source, detailType }
	}
	const spotType = "EC2 Spot Instance Interruption Warning"
	for name, c := range map[string]struct {
		of     string
		change func(event, detail map[string]any)
		want   string
	}{
		"a type without a rule": {"spot-interruption-stop",
			as("aws.ec2", "EC2 Spot Instance Request Fulfillment"),
			`no rule for events of type "EC2 Spot Instance Request Fulfillment" from "aws.ec2"`},
		"a launch": {"asg-terminate-lifecycle",
			as("aws.autoscaling", "EC2 Instance-launch Lifecycle Action"), "no rule"},
		"a Spot warning from a custom source": {"spot-interruption-stop", as("com.example", spotType),
			`no rule for events of type "` + spotType + `" from "com.example"`},
		"a Spot warning from another service": {"spot-interruption-stop", as("aws.health", spotType), "no rule"},
		"a lifecycle action from EC2": {"asg-terminate-lifecycle",
			as("aws.ec2", "EC2 Instance-terminate Lifecycle Action"), "no rule"},
		"a schedule with another name":           {"self-check-schedule", as("aws.events", "Scheduled Something"), "no rule"},
		"a scheduled event from a custom source": {"self-check-schedule", as("com.example", "Scheduled Event"), "no rule"},
		"a rehearsal with a similar source":      {"spot-interruption-stop", as("kops-spot.rehearsals", spotType), "no rule"},
		"a rehearsed lifecycle action": {"asg-terminate-lifecycle",
			as("kops-spot.rehearsal", "EC2 Instance-terminate Lifecycle Action"), "rehearsals support only"},
		"a rehearsed scheduled change": {"health-scheduled-change",
			as("kops-spot.rehearsal", "AWS Health Event"), "rehearsals support only"},
		"a rehearsed failed launch": {"launch-unsuccessful",
			as("kops-spot.rehearsal", "EC2 Instance Launch Unsuccessful"), "rehearsals support only"},
		"a launch that succeeded": {"launch-unsuccessful", as("aws.autoscaling", "EC2 Instance Launch Successful"), "no rule"},
		"a rehearsed state change": {"state-change-terminated",
			as("kops-spot.rehearsal", "EC2 Instance State-change Notification"), "rehearsals support only"},
		"a rehearsal of an unknown type": {"spot-interruption-stop", as("kops-spot.rehearsal", "Earthquake"),
			"rehearsals support only"},
		"an instance that starts": {"state-change-pending", nil, "is starting"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(_, _ map[string]any) {}
			}
			requireNoAction(t, changed(t, c.of, c.change), c.want)
		})
	}
}

func TestDecodeSelfChecks(t *testing.T) {
	t.Parallel()
	asked, err := eventbridge.EncodeSelfCheck("by-hand", "123456789012", "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		event []byte
		id    string
	}{
		"by schedule":              {sample(t, "self-check-schedule"), "12345678-1234-1234-1234-123456789012"},
		"by a person":              {sample(t, "self-check-asked"), "12345678-1234-1234-1234-123456789012"},
		"an encoded one":           {asked, "by-hand"},
		"a schedule's fixed input": {[]byte(`{"source":"kops-spot.self-check","detail-type":"Self-check"}`), ""},
		"one with any detail":      {[]byte(`{"source":"kops-spot.self-check","detail-type":"any","id":"x","detail":"text"}`), "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decode(t, c.event); !got.SelfCheck || got.ID != c.id || got.Interruptions != nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestResourcesAreIgnored: the content of resources depends on the source.
func TestResourcesAreIgnored(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"spot-interruption-terminate", "health-scheduled-change", "asg-terminate-lifecycle"} {
		for _, resources := range []any{nil, []string{},
			[]string{"arn:aws:ec2:us-east-1b:instance/i-0fffffffffffffff0"}} {
			got := decode(t, changed(t, name, func(e, _ map[string]any) { e["resources"] = resources }))
			if len(got.Interruptions) != 1 || got.Interruptions[0].Instance != instance {
				t.Errorf("%s with %v: got %+v", name, resources, got)
			}
		}
	}
}
