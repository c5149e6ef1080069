package template

import (
	"debug/elf"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/eventbridge"
)

// TestMakeBuildsWhatSAMAsksFor: `sam build` runs this target in a copy of the repository without .git.
func TestMakeBuildsWhatSAMAsksFor(t *testing.T) {
	t.Parallel()
	f := shared.Templates[byDefault].Resources["SpotHandlerFunction"]
	if f.Metadata["BuildMethod"] != "makefile" || f.Properties["Handler"] != "bootstrap" {
		t.Errorf("SAM would build %v by %v", f.Properties["Handler"], f.Metadata["BuildMethod"])
	}
	out := filepath.Join(t.TempDir(), "artifacts")
	build := exec.Command("make", "--no-print-directory", "-C", Root(), "build-SpotHandlerFunction", "ARTIFACTS_DIR="+out)
	build.Env = append(os.Environ(), "GOARCH=amd64", "GOFLAGS=") // what the environment says must not matter
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	program, err := elf.Open(filepath.Join(out, "bootstrap"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if program.Machine != elf.EM_AARCH64 {
		t.Errorf("it is built for %s", program.Machine)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Error("it is linked dynamically")
		}
	}
	if info, err := os.Stat(filepath.Join(out, "bootstrap")); err != nil || info.Mode().Perm()&0o111 != 0o111 {
		t.Errorf("it cannot be executed: %v %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(out, "LICENSE")); err != nil {
		t.Errorf("the licence does not go with it: %v", err)
	}
	wrong := exec.Command("make", "--no-print-directory", "-C", Root(), "build-SpotHandlerFunction", "ARTIFACTS_DIR="+out, "ARCH=x86_64")
	if said, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(said), "ARCH=x86_64 is not supported: use arm64 or amd64") {
		t.Errorf("another processor is taken: %v\n%s", err, said)
	}
}

// TestTheSampleEventsAreEvents, each of another kind, and not of the past: the handler takes a moment to come for now.
func TestTheSampleEventsAreEvents(t *testing.T) {
	want := map[string]string{"spot-interruption": "SpotWarning", "rehearsal": "Rehearsal", "self-check": "Rehearsal", "state-change": "StateChange"}
	rules := patterns(t, stack(t, byDefault))
	files, err := filepath.Glob(filepath.Join(Root(), "events", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if name == "env" {
			continue
		}
		found = append(found, name)
		event, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := eventbridge.Decode(event)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, in := range e.Interruptions {
			if in.Time.Year() < 2090 {
				t.Errorf("%s is of %s: it will be stale", name, in.Time)
			}
		}
		if matches, err := rules[want[name]].Matches(event); err != nil || !matches {
			t.Errorf("%s does not come by the rule %s: %v", name, want[name], err)
		}
	}
	if want := slices.Sorted(maps.Keys(want)); !slices.Equal(found, want) {
		t.Errorf("the samples are %q, want %q", found, want)
	}
}

// TestTheSampleEnvironment is one for the function, in which it changes nothing.
func TestTheSampleEnvironment(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "events", "env.json"))
	if err != nil {
		t.Fatal(err)
	}
	var sample map[string]map[string]string
	if err := json.Unmarshal(b, &sample); err != nil {
		t.Fatal(err)
	}
	tmpl := shared.Templates[byDefault]
	given, environ := needed(), []string{}
	for name, value := range sample["SpotHandlerFunction"] {
		environ = append(environ, name+"="+value)
		given[parameterOf(tmpl, name)] = value
	}
	if why := tmpl.Refuses(given); len(why) > 0 || len(sample) != 1 {
		t.Errorf("the template would not take it: %v", why)
	}
	c, err := app.ParseConfig(environ)
	if err != nil || c.Mode != app.Observe {
		t.Errorf("the function takes it for %q: %v", c.Mode, err)
	}
}

// The little of TOML that SAM's configuration needs.
var (
	tomlTable = regexp.MustCompile(`^\[default\.([a-z_]+)\.parameters\]$`)
	tomlValue = regexp.MustCompile(`^([a-z_0-9]+) = ("[^"\\]*"|true|false|[0-9.]+)( *#.*)?$`)
)

// TestSAMsConfiguration is TOML, and names no stack: one for all clusters would have the second take the first one's place.
func TestSAMsConfiguration(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "samconfig.toml"))
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]map[string]string{}
	table := ""
	for n, line := range strings.Split(string(b), "\n") {
		header, value := tomlTable.FindStringSubmatch(line), tomlValue.FindStringSubmatch(line)
		switch {
		case header != nil:
			table = header[1]
			config[table] = map[string]string{}
		case value != nil && table == "":
			if value[1] != "version" || value[2] != "0.1" {
				t.Errorf("line %d: %s", n+1, line)
			}
		case value != nil:
			config[table][value[1]] = strings.Trim(value[2], `"`)
		case line != "" && !strings.HasPrefix(line, "#"):
			t.Errorf("line %d is none of TOML's, or of more than this needs: %s", n+1, line)
		}
	}
	want := map[string]string{"capabilities": "CAPABILITY_NAMED_IAM", "confirm_changeset": "true", "fail_on_empty_changeset": "false", "resolve_s3": "true"}
	if got := config["deploy"]; !maps.Equal(got, want) {
		t.Errorf("sam deploy is told %v, want %v", got, want)
	}
	for command, parameters := range config {
		if parameters["stack_name"] != "" {
			t.Errorf("sam %s has a stack's name", command)
		}
		if file, ok := parameters["env_vars"]; ok {
			if _, err := os.Stat(filepath.Join(Root(), file)); err != nil {
				t.Errorf("sam %s: %v", command, err)
			}
		}
	}
}

// TestTheGuideToDeploying makes the name that iam/ makes, and speaks of every parameter that is no setting.
func TestTheGuideToDeploying(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join(Root(), "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(guide), "    short=")
	command, _, found := strings.Cut(after, "    sam build")
	if !found {
		t.Fatal("it does not say how the short name is made")
	}
	for _, name := range []string{"a.b", cluster, "prod-example.com", strings.Repeat("a", 30) + ".com", strings.Repeat("a", 31) + ".com", strings.Repeat("a-", 20) + "b.com"} {
		out, err := exec.Command("bash", "-euo", "pipefail", "-c", "cluster="+name+"\nshort="+command+"\nprintf %s \"$short\"").Output()
		if err != nil || string(out) != iam.Name(name) {
			t.Errorf("it makes %q of %s, want %q: %v", out, name, iam.Name(name), err)
		}
	}
	tmpl := shared.Templates[byDefault]
	settings := map[string]bool{}
	for _, part := range app.Parts() {
		for _, s := range part.Settings {
			settings[parameterOf(tmpl, s.Name)] = true
		}
	}
	reference, err := os.ReadFile(filepath.Join(Root(), "docs", "stack.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range tmpl.Parameters {
		if !settings[name] && !strings.Contains(string(reference), "`"+name+"`") {
			t.Errorf("it does not speak of %s", name)
		}
	}
}
