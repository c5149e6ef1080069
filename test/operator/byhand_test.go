package operator

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/test/template"
)

// commandsOf returns the commands in a section of the documentation: its indented lines.
func commandsOf(file, section string) string {
	_, text, found := strings.Cut(string(must(os.ReadFile(filepath.Join(template.Root(), "docs", file)))), "\n## "+section+"\n")
	if !found {
		panic(file + " has no section " + section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	commands := ""
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands += command
		}
	}
	return commands
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
	commands := commandsOf("onboarding.md", "By hand")
	if strings.Count(commands, "\n") < 20 {
		t.Fatalf("commands: %q", commands)
	}
	for placeholder, is := range map[string]string{"prod.example.com": cluster, "eu-west-1": region} {
		if !strings.Contains(commands, "="+placeholder) {
			t.Errorf("the commands have no placeholder for %s", is)
		}
		commands = strings.ReplaceAll(commands, placeholder, is)
	}
	defer func() {
		w.Reset()
		w.succeed("offboard", "--cluster", cluster)
	}()
	folder := t.TempDir()
	w.shell(folder, cluster, commands)
	key := w.stored(cluster).Secret
	for name, text := range w.files(filepath.Join(folder, "onboard")) {
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
