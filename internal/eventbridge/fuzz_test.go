package eventbridge_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/castai/kops-spot/internal/eventbridge"
)

// FuzzDecode: whatever comes in is an interruption that can be told, a type without a rule, or an error; never a panic,
// and never half of one.
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
	f.Fuzz(func(t *testing.T, event []byte) {
		in, err := eventbridge.Decode(event)
		var unknown *eventbridge.UnknownError
		switch {
		case errors.As(err, &unknown):
			if unknown.DetailType == "" {
				t.Error("a type without a rule has no name")
			}
			return
		case err != nil:
			if err.Error() == "" {
				t.Error("an error says nothing")
			}
			return
		}
		if in.EventID == "" || in.Instance == "" || in.Region == "" || in.Time.IsZero() || in.Kind.Notice() == "" {
			t.Fatalf("half an interruption: %+v", in)
		}
		back, err := eventbridge.Encode(in)
		if err != nil {
			t.Fatal(err)
		}
		again, err := eventbridge.Decode(back)
		in.Time = in.Time.Truncate(1e9) // events have whole seconds
		if err != nil || again != in {
			t.Fatalf("%+v became %+v, %v", in, again, err)
		}
	})
}
