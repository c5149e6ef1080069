package operator

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/test/template"
	"github.com/castai/kops-spot/test/testenv"
)

// previous is the previous release: its tag, or its commit before the first release.
const previous = "9f40fe0ee5dbfbb29fbea337f26c39cdee7c737d"

// previousRelease builds the previous release from the repository, and returns its command and the function's zip.
func previousRelease(t *testing.T) (program, code string) {
	t.Helper()
	root, source, dir := template.Root(), t.TempDir(), t.TempDir()
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("this is no git repository, so the previous release cannot be built")
	}
	if exec.Command("git", "-C", root, "cat-file", "-e", previous+"^{commit}").Run() != nil {
		t.Fatalf("the repository lacks the previous release %s: if the clone is shallow, run git fetch --unshallow --tags", previous)
	}
	// The flags are those of make cli, so that the build cache has what has not changed since.
	build := exec.Command("bash", "-euo", "pipefail", "-c", `git -C "$0" archive "$1" | tar --extract --directory="$2"; cd "$2"
		go build -trimpath -o "$3/" ./cmd/kops-spot
		make --no-print-directory build-SpotHandlerFunction ARCH=amd64 ARTIFACTS_DIR="$3"`, root, previous, source, dir)
	build.Env = append(os.Environ(), "GOFLAGS=-gcflags=all=-dwarf=false", "CGO_ENABLED=0", "GOWORK=off")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the previous release: %v\n%s", err, said)
	}
	code = filepath.Join(dir, "kops-spot.zip")
	try(zipped(filepath.Join(dir, "bootstrap"), code))
	return filepath.Join(dir, "kops-spot"), code
}

// upgrade updates a stack of the previous release, without any setting: it keeps those of the stack, and the login.
func upgrade(t *testing.T) {
	program, oldCode := previousRelease(t)
	w := home(t)
	startDaemon(t)
	setUp(t, "aws-auth", map[string]string{})
	authenticator(t, testenv.EKSConfigMap)
	before := w.snapshot()
	settings := []string{"Mode=observe", "Force=never", "ForceGrace=45s", "ShutdownGrace=20s", "DaemonSets=last", "Rebalance=cordon",
		"ScheduledChange=drain", "Replace=asg", "Rehearsals=act", "LogRetentionDays=7", "NotifyEmail=people@example.com", "NotifyStarted=ENABLED"}
	old := []string{"install", "--yes", "--code", oldCode, "--set", "Architecture=x86_64"}
	for _, setting := range settings {
		old = append(old, "--set", setting)
	}
	earlier := w.in(t)
	earlier.program = program
	earlier.mustRun(old...)
	becomes(t, logIn(function), handlerName, identitymap.HandlerGroup)
	was := w.parameters()
	for _, setting := range settings {
		if name, value, _ := strings.Cut(setting, "="); was[name] != value {
			t.Fatalf("the previous release has deployed %s=%q, want %q", name, was[name], value)
		}
	}

	upgrade := []string{"install", "--code", code()}
	_, stderr, err := w.command(upgrade...)
	if err == nil || !strings.Contains(stderr, "~ change CloudFormation stack") || !strings.Contains(stderr, "add --yes") {
		t.Errorf("the plan: %v\n%s", err, stderr)
	}
	is := w.succeed(upgrade...)
	logsIn := slices.ContainsFunc(is.Findings, func(f change.Finding) bool { return f.Name == "authentication" && f.Level == change.OK })
	if !is.Applied || is.Findings.Failed() || !logsIn {
		t.Errorf("the upgrade: %+v", is)
	}
	now := w.parameters()
	for name, value := range was {
		if now[name] != value {
			t.Errorf("the upgrade changes %s from %q to %q", name, value, now[name])
		}
	}
	becomes(t, logIn(function), handlerName, identitymap.HandlerGroup)

	// CloudFormation does not show a secret parameter, so an update keeps it without knowing it: also that of an export.
	w.mustRun(append(upgrade, "--set", w.notifyURL("slack+"+slackURL), "--yes")...)
	if is, stderr, err := w.asJSON(append(upgrade, "--yes")...); err != nil || !is.Plan.Empty() {
		t.Errorf("with a secret, the second run: %v\n%s", err, stderr)
	}
	dir := t.TempDir()
	_, stderr = w.mustRun(append(upgrade, "--set", "Force=allow", "--tag", "team=a", "--export", dir)...)
	w.moduleReads(dir)
	_, commands, _ := strings.Cut(stderr, "or run:\n")
	w.shell(t.TempDir(), cluster, commands)
	posts := must(eventbridge.NewFromConfig(w.direct).ListApiDestinations(t.Context(), &eventbridge.ListApiDestinationsInput{})).ApiDestinations
	if len(posts) != 1 || *posts[0].InvocationEndpoint != slackURL || w.parameters()["Force"] != "allow" {
		t.Errorf("NotifyUrl is lost: there are %d API destinations, and the parameters %v", len(posts), w.parameters())
	}
	w.mustRun("uninstall", "--yes")
	w.unchanged("after the upgrade and uninstall", before)
}

// parameters returns the parameters of the cluster's stack.
func (w *world) parameters() map[string]string {
	w.Helper()
	stacks := must(cloudformation.NewFromConfig(w.direct).DescribeStacks(w.Context(),
		&cloudformation.DescribeStacksInput{StackName: aws.String(names.FunctionName(cluster))}))
	all := map[string]string{}
	for _, p := range stacks.Stacks[0].Parameters {
		all[*p.ParameterKey] = *p.ParameterValue
	}
	return all
}
