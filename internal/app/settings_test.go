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

// TestTheSettingsAreDocumented as they are; `make generate` writes them anew.
func TestTheSettingsAreDocumented(t *testing.T) {
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
		t.Errorf("docs/settings.md is not what the code says: run make generate")
	}
}

// annotation is an annotation by which a pod overrules a setting.
type annotation struct{ name, on, values, unset, meaning string }

func annotations() []annotation {
	return []annotation{
		{spot.AnnotationForce, "a pod", joinOr(spot.Forces()), "what `" + envForce + "` says",
			"`never` has the pod die with its machine rather than be deleted past its budget; `allow` lets it be deleted where the setting does not"},
		{spot.AnnotationDrain, "a pod", joinOr(spot.DrainOrders()), "`" + string(spot.DrainFirst) + "`; for a DaemonSet's pod, what `" + envDaemonSets + "` says",
			"when the pod is asked to leave: `first` with all others; `last` when the others have gone, or when its own grace period begins to run out; " +
				"`never` leaves it until the machine ends"},
	}
}

// settingsPage is docs/settings.md.
func settingsPage() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Settings\n")
	line("<!-- Made of the tables in internal/app: make generate -->\n")
	line("The function reads these environment variables when it starts. If one is wrong, or is none of these, it refuses to work and says for every event all")
	line("that is wrong. A variable that is empty counts as not set. The defaults are meant for Spot's two minutes; under each table stands why.\n")
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
	line("Where a pod is to be treated in another way than the settings say, its owner says so. What has another value than these does not count, and the outcome")
	line("says so.\n")
	line("| annotation | on | values | without it | meaning |\n|---|---|---|---|---|")
	for _, a := range annotations() {
		line("| `%s` | %s | %s | %s | %s |", a.name, a.on, a.values, a.unset, a.meaning)
	}
	line("")
	line("A pod's budget, its grace period and its owner say the rest: [how-it-works.md](how-it-works.md).")
	return b.Bytes()
}

// TestEverySettingIsExplained: nobody has to read code to choose a value.
func TestEverySettingIsExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, part := range Parts() {
		for _, s := range part.Settings {
			if s.Values == "" || s.Meaning == "" || s.Why == "" || !strings.HasPrefix(s.Name, prefix) || seen[s.Name] {
				t.Errorf("%+v is half a setting, or there are two of it", s)
			}
			if strings.ContainsAny(s.Values+s.Meaning+s.Default, "|\n") {
				t.Errorf("%s does not fit into a table", s.Name)
			}
			seen[s.Name] = true
		}
	}
}

// TestTheDefaultsAreTheDomains: what a setting says of itself is what counts where it is not set, and setting it to that
// changes nothing.
func TestTheDefaultsAreTheDomains(t *testing.T) {
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
		t.Errorf("without any settings the policy is %+v, %v", p, err)
	}
}
