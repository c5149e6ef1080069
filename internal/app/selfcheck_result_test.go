package app

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spottest"
)

// TestSelfCheckEvent: the function that handles interruptions answers it, with metrics.
func TestSelfCheckEvent(t *testing.T) {
	for _, sample := range []string{"self-check-schedule.json", "self-check-asked.json"} {
		for _, want := range []Readiness{Ready, NotReady} {
			inCheckWorld(t, func(w *checkWorld) {
				if want == NotReady {
					w.cluster.Forbid("patch", "nodes")
				}
				event, err := os.ReadFile(filepath.Join("..", "eventbridge", "testdata", sample))
				if err != nil {
					w.Fatal(err)
				}
				f := &Function{cluster: cluster, check: w.checker.run, stdout: w.logged, log: Logger(w.logged)}
				result, err := f.Handle(w.Context(), event)
				if err != nil {
					w.Fatal(err)
				}
				b, _ := json.Marshal(result)
				var got struct {
					Version int
					Result  Readiness
					Program string
					Cluster string
					Checks  []map[string]any
					Overdue []any
				}
				d := json.NewDecoder(bytes.NewReader(b))
				d.DisallowUnknownFields()
				if err := d.Decode(&got); err != nil || got.Version != 1 || got.Result != want || got.Cluster != cluster || got.Overdue == nil {
					w.Errorf("%s, %v", b, err)
				}
				for _, c := range got.Checks {
					if c["name"] == "" || c["ok"] == nil || c["ok"] == false && c["advice"] == nil {
						w.Errorf("%v", c)
					}
				}
				lines := metricLines(w.T, w.logged)
				if len(lines) != 1 || lines[0]["Ready"] != map[Readiness]float64{Ready: 1, NotReady: 0}[want] || lines[0]["Overdue"] != 0.0 ||
					lines[0]["Cluster"] != cluster || lines[0]["Result"] != nil {
					w.Errorf("metrics: %v", lines)
				}
				if !strings.Contains(w.logged.String(), `"msg":"self-check","event":"12345678-1234-1234-1234-123456789012"`) {
					w.Errorf("logged %s", w.logged)
				}
			})
		}
	}
}

// TestOverdueUnknown: a zero would mean that nothing is overdue.
func TestOverdueUnknown(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.aws.Fail("DescribeInstances", -1, spottest.Denied())
		if m := w.run(NotReady).metrics(); len(m) != 1 || m[0].Name != "Ready" || m[0].value != 0 {
			w.Errorf("metrics: %v", m)
		}
	})
}

// TestTexts: the self-check reads the texts that are stored outside the configuration.
func TestTexts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ env, want []string }{
		"a token, a CA in the variable": {complete("KOPS_SPOT_CA=" + testCA(t)), []string{"token"}},
		"all in files": {complete("KOPS_SPOT_LOGIN=file:"+path, "KOPS_SPOT_CA=file:"+path, "KOPS_SPOT_CASTAI_CLUSTER="+castaiCluster,
			"KOPS_SPOT_CASTAI_KEY=file:"+path), []string{"token", "ca", "castai key"}},
		"aws-iam-authenticator": {complete("KOPS_SPOT_LOGIN=iam"), nil},
	} {
		cfg, err := ParseConfig(c.env)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, text := range cfg.texts(nil) {
			names = append(names, text.what)
			if value, err := text.read(t.Context()); name == "all in files" && (err != nil || value != "s") {
				t.Errorf("%s: read %q, %v", text.what, value, err)
			}
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%s: read %q, want %q", name, names, c.want)
		}
	}
}

// TestNew makes no request.
func TestNew(t *testing.T) {
	t.Setenv("AWS_REGION", "us-east-1")
	for _, mode := range []string{"observe", "act"} {
		f, err := New(t.Context(), []string{"KOPS_SPOT_CLUSTER=" + cluster, "KOPS_SPOT_MODE=" + mode, "KOPS_SPOT_LOGIN=iam", "KOPS_SPOT_SERVER=https://127.0.0.1:1"}, "1", io.Discard)
		if err != nil || f.handle == nil || f.check == nil || f.cluster != cluster {
			t.Errorf("%s: %+v, %v", mode, f, err)
		}
	}
}
