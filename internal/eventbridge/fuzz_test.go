package eventbridge_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// FuzzDecode: any input results in complete interruptions, a self-check, an UnknownError or another error, and never in
// a panic.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"source":"aws.ec2","detail-type":"EC2 Spot Instance Interruption Warning","detail":null}`))
	f.Add([]byte(`{"source":"kops-spot.self-check","detail-type":"Self-check"}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		got, err := eventbridge.Decode(event)
		var unknown *eventbridge.UnknownError
		switch {
		case errors.As(err, &unknown):
			if unknown.DetailType == "" || unknown.Source == "" {
				t.Error("a type without a rule has no name")
			}
			return
		case err != nil:
			if err.Error() == "" {
				t.Error("an error says nothing")
			}
			return
		case got.SelfCheck != (len(got.Interruptions) == 0):
			t.Fatalf("neither a self-check nor an interruption, or both: %+v", got)
		}
		var seen []string
		for _, in := range got.Interruptions {
			if in.EventID == "" || in.EventID != got.ID || slices.Contains(seen, in.Instance) {
				t.Fatalf("not one of each: %+v", got)
			}
			seen = append(seen, in.Instance)
			requireComplete(t, in)
			requireRoundTrip(t, in)
		}
	})
}

// requireComplete requires every field that the handler needs.
func requireComplete(t *testing.T, in spot.Interruption) {
	t.Helper()
	if (in.Kind == spot.LaunchFailed) == (len(in.Instance) >= len("i-12345678")) || in.Region == "" || in.Time.IsZero() || in.Kind.Description() == "" ||
		(in.Kind == spot.ScheduledChange) == in.Start.IsZero() ||
		(in.Kind == spot.StateChange) == (in.State == "") ||
		(in.Kind == spot.LaunchFailed) != (in.Group != "" && in.Message != "") ||
		(in.Kind == spot.LifecycleTerminate) == (in.Action == spot.Action{}) ||
		in.Kind == spot.LifecycleTerminate &&
			(in.Action.Group == "" || in.Action.Hook == "" || in.Action.Instance != in.Instance) {
		t.Fatalf("half an interruption: %+v", in)
	}
}

// requireRoundTrip requires that encoding and decoding returns the same interruption.
func requireRoundTrip(t *testing.T, in spot.Interruption) {
	t.Helper()
	event, err := eventbridge.Encode(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := eventbridge.Decode(event)
	in.Time, in.Start = in.Time.Truncate(1e9), in.Start.Truncate(1e9) // events have a resolution of 1 s
	if err != nil || len(got.Interruptions) != 1 || got.Interruptions[0] != in {
		t.Fatalf("%+v became %+v, %v", in, got, err)
	}
}
