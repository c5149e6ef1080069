package template

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"

	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/eventbridge"
)

// TestMakeTargetOfSAM: `sam build` runs this target in a copy of the repository without .git.
func TestMakeTargetOfSAM(t *testing.T) {
	t.Parallel()
	f := shared.Templates[byDefault].Resources["SpotHandlerFunction"]
	if f.Metadata["BuildMethod"] != "makefile" || f.Properties["Handler"] != "bootstrap" {
		t.Errorf("SAM builds %v with %v", f.Properties["Handler"], f.Metadata["BuildMethod"])
	}
	out := filepath.Join(t.TempDir(), "artifacts")
	build := exec.Command("make", "--no-print-directory", "-C", Root(), "build-SpotHandlerFunction",
		"ARTIFACTS_DIR="+out)
	build.Env = append(os.Environ(), "GOARCH=amd64", "GOFLAGS=") // independent of the environment
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	program, err := elf.Open(filepath.Join(out, "bootstrap"))
	must(t, err)
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
		t.Errorf("the license is missing: %v", err)
	}
	wrong := exec.Command("make", "--no-print-directory", "-C", Root(), "build-SpotHandlerFunction",
		"ARTIFACTS_DIR="+out, "ARCH=x86_64")
	if said, err := wrong.CombinedOutput(); err == nil ||
		!strings.Contains(string(said), "ARCH=x86_64 is not supported: use arm64 or amd64") {
		t.Errorf("another processor is accepted: %v\n%s", err, said)
	}
}

// TestSampleEvents: each is of a different kind and not expired. The handler reads a missing time as now.
func TestSampleEvents(t *testing.T) {
	want := map[string]string{"spot-interruption": "SpotWarning", "rehearsal": "Rehearsal", "self-check": "Rehearsal",
		"state-change": "StateChange", "launch-failed": "LaunchFailed"}
	rules := patterns(t, stack(t, byDefault))
	files, err := filepath.Glob(filepath.Join(Root(), "events", "*.json"))
	must(t, err)
	var found []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if name == "env" {
			continue
		}
		found = append(found, name)
		event, err := os.ReadFile(file)
		must(t, err)
		e, err := eventbridge.Decode(event)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, in := range e.Interruptions {
			if in.Time.Year() < 2090 {
				t.Errorf("%s has the time %s, so it expires", name, in.Time)
			}
		}
		if matches, err := rules[want[name]].Matches(event); err != nil || !matches {
			t.Errorf("%s does not match the rule %s: %v", name, want[name], err)
		}
	}
	if want := slices.Sorted(maps.Keys(want)); !slices.Equal(found, want) {
		t.Errorf("the samples are %q, want %q", found, want)
	}
}

// TestSampleEnvironment: the variables are the function's, and in observe mode.
func TestSampleEnvironment(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "events", "env.json"))
	must(t, err)
	var sample map[string]map[string]string
	must(t, json.Unmarshal(b, &sample))
	tmpl := shared.Templates[byDefault]
	given, environ := needed(), []string{}
	for name, value := range sample["SpotHandlerFunction"] {
		environ = append(environ, name+"="+value)
		given[parameterOf(tmpl, name)] = value
	}
	if why := tmpl.Refuses(given); len(why) > 0 || len(sample) != 1 {
		t.Errorf("the template does not accept it: %v", why)
	}
	c, err := app.ParseConfig(environ)
	if err != nil || c.Mode != app.Observe {
		t.Errorf("the function reads it as mode %q: %v", c.Mode, err)
	}
}

// The subset of TOML in SAM's configuration.
var (
	tomlTable = regexp.MustCompile(`^\[default\.([a-z_]+)\.parameters\]$`)
	tomlValue = regexp.MustCompile(`^([a-z_0-9]+) = ("[^"\\]*"|true|false|[0-9.]+)( *#.*)?$`)
)

// TestSAMConfiguration: valid TOML without a stack name. With one for all clusters, the second cluster would replace
// the first.
func TestSAMConfiguration(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "samconfig.toml"))
	must(t, err)
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
			t.Errorf("line %d is not in the supported subset of TOML: %s", n+1, line)
		}
	}
	want := map[string]string{"capabilities": "CAPABILITY_NAMED_IAM", "confirm_changeset": "true",
		"fail_on_empty_changeset": "false", "resolve_s3": "true"}
	if got := config["deploy"]; !maps.Equal(got, want) {
		t.Errorf("sam deploy has the parameters %v, want %v", got, want)
	}
	for command, parameters := range config {
		if parameters["stack_name"] != "" {
			t.Errorf("sam %s has a stack name", command)
		}
		if file, ok := parameters["env_vars"]; ok {
			if _, err := os.Stat(filepath.Join(Root(), file)); err != nil {
				t.Errorf("sam %s: %v", command, err)
			}
		}
	}
}

// TestServerlessRepository: the metadata for `sam publish` has the tree's version, and the form that AWS documents.
func TestServerlessRepository(t *testing.T) {
	got := shared.Templates[byDefault].Metadata["AWS::ServerlessRepo::Application"].(map[string]any)
	version, err := os.ReadFile(filepath.Join(Root(), "VERSION"))
	must(t, err)
	for field, want := range map[string]string{"Name": `[a-zA-Z0-9-]{1,140}`, "Description": `.{1,256}`,
		"Author": `[a-z0-9](-?[a-z0-9])*`, "SpdxLicenseId": `Apache-2\.0`, "LicenseUrl": "LICENSE", "ReadmeUrl": `README\.md`,
		"Labels": `\[[a-zA-Z0-9+_:/@ -]+\]`, "SemanticVersion": regexp.QuoteMeta(strings.TrimSpace(string(version)))} {
		if value := fmt.Sprint(got[field]); !regexp.MustCompile("^" + want + "$").MatchString(value) {
			t.Errorf("%s is %q, want %s", field, value, want)
		}
	}
	for file, text := range map[string]string{"LICENSE": "Apache License\n                           Version 2.0", "README.md": "# kops-spot"} {
		if b, err := os.ReadFile(filepath.Join(Root(), file)); err != nil || !strings.Contains(string(b), text) {
			t.Errorf("%s does not contain %q: %v", file, text, err)
		}
	}
}

// TestStackGuide covers every parameter that is not a setting.
func TestStackGuide(t *testing.T) {
	tmpl := shared.Templates[byDefault]
	settings := map[string]bool{}
	for _, part := range app.Parts() {
		for _, s := range part.Settings {
			settings[parameterOf(tmpl, s.Name)] = true
		}
	}
	reference, err := os.ReadFile(filepath.Join(Root(), "docs", "stack.md"))
	must(t, err)
	for name := range tmpl.Parameters {
		if !settings[name] && !strings.Contains(string(reference), "`"+name+"`") {
			t.Errorf("it does not mention %s", name)
		}
	}
}
