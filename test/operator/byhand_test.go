package operator

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/test/template"
)

// byHand returns the commands in the section "By hand" of docs/onboarding.md.
func byHand(t *testing.T) string {
	t.Helper()
	_, section, found := strings.Cut(string(must(os.ReadFile(filepath.Join(template.Root(), "docs", "onboarding.md")))),
		"\n## By hand\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for line := range strings.SplitSeq(section, "\n") {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, command)
		}
	}
	if !found || len(commands) < 20 {
		t.Fatalf("commands: %q", commands)
	}
	return strings.Join(commands, "\n")
}

// onboardByHand runs the commands of the documentation. After them, onboarding has nothing to change.
func onboardByHand(t *testing.T) {
	for _, tool := range []string{"aws", "kubectl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: install the AWS CLI and kubectl", err)
		}
	}
	w := newWorld(t)
	w.node(w.cluster(cluster))
	commands := byHand(t)
	for placeholder, is := range map[string]string{"prod.example.com": cluster, "eu-west-1": region} {
		if !strings.Contains(commands, "="+placeholder) {
			t.Errorf("the commands have no placeholder for %s", is)
		}
		commands = strings.ReplaceAll(commands, placeholder, is)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
	bash.Dir = t.TempDir()
	bash.Env = w.environ()
	said, err := bash.CombinedOutput()
	outputs.add(string(said))
	defer func() {
		w.Reset()
		w.succeed("offboard", "--cluster", cluster)
	}()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	key := w.stored(cluster).Secret
	for name, text := range w.files(filepath.Join(bash.Dir, "onboard")) {
		if strings.Contains(text, key) || strings.HasPrefix(name, "token.json") {
			t.Errorf("%s contains a secret", name)
		}
	}
	for _, one := range w.succeed("onboard", "--cluster", cluster).Plan {
		if one.Changes() {
			t.Errorf("after the commands, a row remains: %s: %s\n%s", one.Row(), one.Why, strings.Join(one.Diff, "\n"))
		}
	}
	w.storesToken()
}
