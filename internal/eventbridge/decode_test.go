package eventbridge_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

func sample(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeSpotWarnings(t *testing.T) {
	for name, want := range map[string]spot.Interruption{
		"spot-interruption-terminate.json": {Kind: spot.SpotTerminate, Region: "us-east-1"},
		"spot-interruption-stop.json":      {Kind: spot.SpotStop, Region: "us-east-1"},
		"spot-interruption-hibernate.json": {Kind: spot.SpotHibernate, Region: "us-east-1"},
		"spot-interruption-doc-arn.json":   {Kind: spot.SpotTerminate, Region: "us-east-2"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := eventbridge.Decode(sample(t, name))
			if err != nil {
				t.Fatal(err)
			}
			want.EventID, want.Instance, want.Account = "12345678-1234-1234-1234-123456789012", "i-1234567890abcdef0", "123456789012"
			want.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestEveryOtherSampleIsUnknown: what has no rule yet is told apart from what is malformed.
func TestEveryOtherSampleIsUnknown(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.json")
	others := 0
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), "spot-interruption-") {
			continue
		}
		others++
		_, err := eventbridge.Decode(sample(t, filepath.Base(f)))
		var unknown *eventbridge.UnknownError
		if !errors.As(err, &unknown) || unknown.DetailType == "" || unknown.ID == "" {
			t.Errorf("%s: %v", f, err)
		}
	}
	if others == 0 {
		t.Error("there are no other samples")
	}
}

func TestThereAndBack(t *testing.T) {
	for _, kind := range []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate} {
		want := spot.Interruption{EventID: "e", Kind: kind, Instance: "i-1234567890abcdef0", Account: "123456789012",
			Region: "eu-west-1", Time: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Replayed: kind == spot.SpotStop}
		event, err := eventbridge.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := eventbridge.Decode(event)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := eventbridge.Encode(spot.Interruption{Kind: "earthquake"}); err == nil {
		t.Error("an event was made for a kind that has none")
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(event map[string]any)
		raw    string
		want   string
	}{
		"no JSON":              {raw: "{", want: "not a JSON object"},
		"a list":               {raw: "[]", want: "not a JSON object"},
		"an SQS batch":         {raw: `{"Records":[{}]}`, want: "without an input transformer"},
		"the detail alone":     {raw: `{"instance-id":"i-1234567890abcdef0"}`, want: "without an input transformer"},
		"no instance":          {change: func(e map[string]any) { delete(e["detail"].(map[string]any), "instance-id") }, want: `"" is no EC2 instance id`},
		"no EC2 instance":      {change: func(e map[string]any) { e["detail"].(map[string]any)["instance-id"] = "mi-1234" }, want: "no EC2 instance id"},
		"a path for instance":  {change: func(e map[string]any) { e["detail"].(map[string]any)["instance-id"] = "i-1234567890abcdef0/../x" }, want: "no EC2 instance id"},
		"an unknown action":    {change: func(e map[string]any) { e["detail"].(map[string]any)["instance-action"] = "explode" }, want: `"explode", not terminate`},
		"a detail that is not": {change: func(e map[string]any) { e["detail"] = "x" }, want: "decoding the detail"},
		"no detail":            {change: func(e map[string]any) { delete(e, "detail") }, want: "decoding the detail"},
		"no id":                {change: func(e map[string]any) { delete(e, "id") }, want: `no "id"`},
		"no time":              {change: func(e map[string]any) { delete(e, "time") }, want: `"time"`},
		"another time":         {change: func(e map[string]any) { e["time"] = "Thu, 27 Aug 2026 13:19:03 GMT" }, want: `"time"`},
		"no region":            {change: func(e map[string]any) { delete(e, "region") }, want: `"region"`},
	} {
		t.Run(name, func(t *testing.T) {
			event := []byte(c.raw)
			if c.change != nil {
				var e map[string]any
				if err := json.Unmarshal(sample(t, "spot-interruption-terminate.json"), &e); err != nil {
					t.Fatal(err)
				}
				c.change(e)
				event, _ = json.Marshal(e)
			}
			_, err := eventbridge.Decode(event)
			var unknown *eventbridge.UnknownError
			if err == nil || errors.As(err, &unknown) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestResourcesAreNotBelieved: what stands there differs from source to source, so nothing is read from it.
func TestResourcesAreNotBelieved(t *testing.T) {
	for _, resources := range []any{nil, []string{}, []string{"arn:aws:ec2:us-east-1b:instance/i-0fffffffffffffff0"}} {
		var e map[string]any
		if err := json.Unmarshal(sample(t, "spot-interruption-terminate.json"), &e); err != nil {
			t.Fatal(err)
		}
		e["resources"] = resources
		event, _ := json.Marshal(e)
		got, err := eventbridge.Decode(event)
		if err != nil || got.Instance != "i-1234567890abcdef0" {
			t.Errorf("%v: got %s, %v", resources, got.Instance, err)
		}
	}
}
