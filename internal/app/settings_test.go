package app

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

var update = flag.Bool("update", false, "write docs/settings.md instead of comparing it")

const settingsDocument = "../../docs/settings.md"

// TestSettingsPage compares docs/settings.md with the code; `make generate` writes it.
func TestSettingsPage(t *testing.T) {
	want := settingsPage()
	if *update {
		if err := os.WriteFile(settingsDocument, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(settingsDocument)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/settings.md is outdated: run make generate")
	}
}

// annotation is a pod annotation that overrides a setting.
type annotation struct{ name, on, values, unset, meaning string }

func annotations() []annotation {
	return []annotation{
		{spot.AnnotationForce, "a pod", joinOr(spot.Forces()), "`" + envForce + "`",
			"`never` respects the pod's budget until the instance ends; `allow` permits a force-delete"},
		{spot.AnnotationDrain, "a pod", joinOr(spot.DrainOrders()),
			"`" + string(spot.DrainFirst) + "`; `" + envDaemonSets + "` for DaemonSet pods",
			"when to evict the pod: `first` at once; `last` when all others are gone, or when its own grace period would " +
				"no longer fit; `never` not at all"},
	}
}

// settingsPage returns docs/settings.md.
func settingsPage() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Settings\n")
	line("<!-- Generated from the tables in internal/app: run make generate -->\n")
	line("The function reads these environment variables when it starts. With an invalid value or an unknown `KOPS_SPOT_`")
	line("variable, every invocation fails with a list of all errors. An empty variable counts as unset. The defaults suit the")
	line("two minutes of a Spot warning. The reasons are below each table.\n")
	for _, part := range Parts() {
		line("## %s\n", part.Title)
		line("| variable | default | values | meaning |\n|---|---|---|---|")
		for _, s := range part.Settings {
			unset := "none"
			if s.Default != "" {
				unset = "`" + s.Default + "`"
			}
			line("| `%s` | %s | %s | %s |", s.Name, unset, s.Values, s.Meaning)
		}
		line("")
		for _, s := range part.Settings {
			line("- `%s`: %s", s.Name, s.Why)
		}
		line("")
	}
	line("## Annotations\n")
	line("Annotations override the settings for a pod. Other values are ignored, and the outcome reports them.\n")
	line("| annotation | on | values | without it | meaning |\n|---|---|---|---|---|")
	for _, a := range annotations() {
		line("| `%s` | %s | %s | %s | %s |", a.name, a.on, a.values, a.unset, a.meaning)
	}
	line("")
	line("[how-it-works.md](how-it-works.md) has the other rules for pods: budgets, grace periods and owners.")
	return b.Bytes()
}

// TestSettingsAreDescribed: users can choose a value without reading code.
func TestSettingsAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, part := range Parts() {
		for _, s := range part.Settings {
			if s.Values == "" || s.Meaning == "" || s.Why == "" || !strings.HasPrefix(s.Name, prefix) || seen[s.Name] {
				t.Errorf("%+v is incomplete or a duplicate", s)
			}
			if strings.ContainsAny(s.Values+s.Meaning+s.Default, "|\n") {
				t.Errorf("%s does not fit into a table", s.Name)
			}
			seen[s.Name] = true
		}
	}
}

// TestDefaults: setting a documented default changes nothing.
func TestDefaults(t *testing.T) {
	for _, part := range Parts() {
		for _, s := range part.Settings {
			if s.read == nil || s.Default == "" {
				continue
			}
			c := Config{Policy: spot.DefaultPolicy("prod.example.com")}
			if err := s.read(&c, s.Default); err != nil || !reflect.DeepEqual(c, Config{Policy: spot.DefaultPolicy("prod.example.com")}) {
				t.Errorf("%s=%s is not the default: %+v, %v", s.Name, s.Default, c, err)
			}
		}
	}
	if p, err := PolicyOf([]string{"KOPS_SPOT_CLUSTER=prod.example.com"}); err != nil || !reflect.DeepEqual(p, spot.DefaultPolicy("prod.example.com")) {
		t.Errorf("without settings: %+v, %v", p, err)
	}
}
