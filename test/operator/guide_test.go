package operator

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/test/template"
	"github.com/castai/kops-spot/test/testenv"
)

// withSAM runs the commands of docs/install.md for two clusters of an account. The first one has an authenticator, and
// its function authenticates as its role. The second one has none, and its function has a token.
func withSAM(t *testing.T) {
	try(cp().Apply(t.Context(), []byte(testenv.MappingsCRD)))
	other := openWorld(t, account, events().URL, credentials.NewStaticCredentialsProvider("test", "test", ""))
	folder, worker, before := t.TempDir(), other.cluster(otherCluster), []string(nil)
	t.Run("IAM", func(t *testing.T) {
		w := home(t)
		before = w.snapshot()
		startDaemon(t)
		setUp(t, "aws-auth", map[string]string{})
		authenticator(t, testenv.EKSConfigMap)
		w.followGuide(folder, cluster)
		w.shell(folder, cluster, "sam deploy --region eu-west-1 --stack-name "+names.FunctionName(cluster)+" --parameter-overrides Mode=act")
		w.mustRun("check")
		settings := w.function(cluster).Environment.Variables
		if settings["KOPS_SPOT_MODE"] != "act" || settings["KOPS_SPOT_LOGIN"] != "iam" || settings["KOPS_SPOT_CA"] == "" {
			t.Errorf("after deploying again with Mode=act, the settings are %q", settings)
		}
	})
	t.Run("token", func(t *testing.T) {
		w := other.in(t)
		w.node(worker)
		w.followGuide(folder, otherCluster)
		if role := *w.function(otherCluster).Role; !strings.HasSuffix(role, "/"+names.FunctionRoleName(otherCluster)) {
			t.Errorf("the second cluster's function has the role %s", role)
		}
		w.mustRun("uninstall", "--yes", "--cluster", otherCluster)
		w.shell(folder, otherCluster, "aws s3 rb --force s3://aws-sam-cli-managed-default-eu-west-1")
	})
	t.Run("uninstall", func(t *testing.T) {
		w := home(t)
		w.mustRun("uninstall", "--yes")
		w.unchanged("after sam and uninstall", before)
	})
}

func (w *world) function(cluster string) *lambda.GetFunctionConfigurationOutput {
	w.Helper()
	name := names.FunctionName(cluster)
	return must(lambda.NewFromConfig(w.direct).GetFunctionConfiguration(w.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: &name}))
}

// guide runs every command of docs/guide.md.
func guide(t *testing.T) {
	w := home(t)
	before := w.snapshot()
	if commands, n := w.runs("", string(must(os.ReadFile(filepath.Join(template.Root(), "docs", "guide.md"))))); commands < 10 || n < 20 {
		t.Errorf("docs/guide.md shows %d commands and %d lines", commands, n)
	}
	w.unchanged("after the guide", before)
}

// runs runs every command of a text in one shell, after a prelude. Each prints the lines shown after it, in order. It
// returns the number of commands and of lines shown.
func (w *world) runs(prelude, text string) (n, lines int) {
	w.Helper()
	var commands, shown []string
	for line := range strings.Lines(text) {
		text, indented := strings.CutPrefix(line, "    ")
		command, isCommand := strings.CutPrefix(text, "$ ")
		more, continues := strings.CutPrefix(text, "> ")
		switch {
		case indented && isCommand:
			commands, shown = append(commands, strings.TrimSpace(command)), append(shown, "")
		case indented && continues:
			commands[len(commands)-1] += "\n" + strings.TrimRight(more, "\n")
		case indented:
			shown[len(shown)-1] += text
		}
	}
	// The command in the guide has the function's code in it.
	const mark = "== the next command =="
	script := prelude + `kops-spot() { if [ "$1" = install ]; then command kops-spot "$@" --code ` + code() + ` --set Architecture=x86_64; else command kops-spot "$@"; fi; }` + "\n"
	for _, command := range commands {
		script += strings.ReplaceAll(command, "i-0a1b2c3d4e5f60718", homeWorker) + "\necho '" + mark + "'\n"
	}
	printed := strings.Split(normalized(w.shell(w.TempDir(), cluster, script)), mark+"\n")
	for i, command := range commands {
		lines += shows(w.T, command, shown[i], printed[i])
	}
	return len(commands), lines
}

// followGuide deploys the function of a cluster with the commands in the section "With SAM".
func (w *world) followGuide(folder, cluster string) {
	w.Helper()
	commands := commandsOf("install.md", "With SAM")
	const grant, stack = "kops-spot grant --set Mode=observe", "cast-kops-prod-example-com-7405b0253a21"
	if strings.Count(commands, grant) != 2 || strings.Count(commands, stack) != 1 || !strings.Contains(commands, "\nsam build\n") {
		w.Fatalf("the guide's commands are\n%s", commands)
	}
	commands = strings.NewReplacer(stack, names.FunctionName(cluster), grant, grant+" --yes").Replace(commands) // there is no terminal
	said := w.shell(folder, cluster, commands)
	for _, want := range []string{"✔ authentication  the API server accepts the function's credentials\n", "✔ all checks passed\n"} {
		if !strings.Contains(said, want) {
			w.Errorf("the guide's commands end without %q:\n%s", want, said)
		}
	}
}

// shell runs commands in a folder and returns what they print.
func (w *world) shell(folder, cluster, commands string) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	defer cancel()
	bash := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	bash.Dir = folder
	caches := strings.Fields(string(must(exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()))) // HOME is empty
	bash.Env = append(w.environ(), "KOPS_SPOT_CLUSTER="+cluster, "PROJECT="+template.Root(), "GOCACHE="+caches[0], "GOMODCACHE="+caches[1],
		"PATH="+must(filepath.Abs("testdata/bin"))+":"+programs()+":"+os.Getenv("PATH"))
	said, err := bash.CombinedOutput()
	outputs.add(string(said))
	if err != nil {
		w.Fatalf("%v\n%s\n%s", err, commands, said)
	}
	return string(said)
}
