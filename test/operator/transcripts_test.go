package operator

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/castai/kops-spot/test/template"
)

// normal replaces values that differ between runs.
var normal = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`https://127\.0\.0\.1:\d+`), "https://api.prod.example.com"},
	{regexp.MustCompile(`127\.0\.0\.1`), "api.prod.example.com"},
	{regexp.MustCompile(`\bi-[0-9a-f]{17}\b`), "i-0a1b2c3d4e5f60718"},
	{regexp.MustCompile(`\bvpc-[0-9a-f]{8,17}\b`), "vpc-0a1b2c3d"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`), "2026-12-01 09:30:00 UTC"},
	{regexp.MustCompile(`[0-9a-f]{16}\.(zip|yaml)`), "0123456789abcdef.$1"},
	{regexp.MustCompile(`\b\d+ KB\b`), "4096 KB"},
	{regexp.MustCompile(`\bversion     ?\S+`), "version     0.1.0"},
	{regexp.MustCompile(`version \S+, mode`), "version 0.1.0, mode"},
	{regexp.MustCompile(`\d+ Spot instances`), "2 Spot instances"},
	{regexp.MustCompile(`after \d+\.\d\d s\b`), "after 1.00 s"},
	{regexp.MustCompile(`\beu-west-1[abc]\b`), "eu-west-1a"},
	{regexp.MustCompile(`x86_64`), "arm64"},
	{regexp.MustCompile(`arn:aws:sts::123456789012:user/moto`), "arn:aws:iam::123456789012:user/you"},
	{regexp.MustCompile(`(reading configz of node \S+): .*`), "$1: no such host"}, // there is no kubelet, and the resolver says so
	{regexp.MustCompile(`(?m) +$`), ""},
}

func normalized(text string) string {
	for _, n := range normal {
		text = n.pattern.ReplaceAllString(text, n.by)
	}
	return text
}

// transcript compares an output with a file of testdata. With UPDATE_TRANSCRIPTS set, it updates the file: review the
// diff.
func transcript(t *testing.T, name, said string) {
	t.Helper()
	file, said := filepath.Join("testdata", name+".txt"), normalized(said)
	if os.Getenv("UPDATE_TRANSCRIPTS") != "" {
		try(os.WriteFile(file, []byte(said), 0o644))
		return
	}
	want := must(os.ReadFile(file))
	if said != string(want) {
		t.Errorf("%s printed\n%s\nwant\n%s", name, said, want)
	}
}

// TestGuideTranscripts: in docs/install.md, each command is followed by lines of its transcript, in order; … stands
// for omitted lines.
func TestGuideTranscripts(t *testing.T) {
	guide := must(os.ReadFile(filepath.Join(template.Root(), "docs", "install.md")))
	shown := map[string]string{}
	name := ""
	for line := range strings.SplitSeq(string(guide), "\n") {
		text, indented := strings.CutPrefix(line, "    ")
		command, isCommand := strings.CutPrefix(text, "$ kops-spot ")
		switch {
		case indented && isCommand:
			name = strings.Fields(command)[0]
		case indented || line == "" && name != "":
			shown[name] += strings.TrimRight(text, " ") + "\n"
		default:
			name = ""
		}
	}
	for _, name := range []string{"install", "check", "status", "uninstall"} {
		want := must(os.ReadFile(filepath.Join("testdata", name+".txt")))
		if n := shows(t, "kops-spot "+name, shown[name], string(want)); n < 3 {
			t.Errorf("docs/install.md shows %d lines of kops-spot %s only", n, name)
		}
	}
}

// shows checks that the lines shown for a command are among those that it has printed, in this order. It returns their
// number; … stands for omitted lines.
func shows(t *testing.T, command, shown, printed string) (n int) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(shown), "\n") {
		if line == "" || strings.TrimSpace(line) == "…" {
			continue
		}
		_, after, found := strings.Cut("\n"+printed, "\n"+line+"\n")
		if !found {
			t.Errorf("%s does not print %q there:\n%s", command, line, printed)
			continue
		}
		printed, n = after, n+1
	}
	return n
}
