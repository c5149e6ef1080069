package operator

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// kubeconfig returns the environment for a connection to the cluster through the fault proxy.
func (w *world) kubeconfig() []string {
	w.Helper()
	admin := cp().AdminConfig()
	line := must(w.FaultProxy.Cluster(admin.Host, must(rest.TransportFor(admin))))
	w.Cleanup(line.Close)
	file := filepath.Join(w.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: %q}}]\n", line.URL)
	try(os.WriteFile(file, []byte(text), 0o600))
	return []string{"KUBECONFIG=" + file}
}

// export exports to a directory that contains another file, and returns the exported files.
func (w *world) export(args ...string) map[string]string {
	w.Helper()
	dir := filepath.Join(w.TempDir(), "onboard")
	try(os.Mkdir(dir, 0o755))
	for name, text := range map[string]string{"mine.json": "mine", "user-tags.json": "of an earlier export"} {
		try(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	stdout, _ := w.mustRun(append([]string{"onboard", "--export", dir}, args...)...)
	files := w.files(dir)
	for name := range files {
		if said := strings.Contains(stdout, filepath.Join(dir, name)+"\n"); said == (name == "mine.json") {
			w.Errorf("%s is listed: %t", name, said)
		}
	}
	if files["mine.json"] != "mine" {
		w.Error("another file was overwritten")
	}
	delete(files, "mine.json")
	return files
}

// onboardAndOffboard runs an operator's commands in sequence.
func onboardAndOffboard(t *testing.T) {
	w := newWorld(t)
	instance := w.cluster(cluster)
	w.node(instance)
	before, beforeInCluster := w.snapshot(), inCluster(t)
	contains := func(stderr, want string) {
		t.Helper()
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is missing in:\n%s", want, stderr)
		}
	}

	// Without a terminal and --yes, nothing is changed.
	_, stderr, err := w.command("onboard")
	if wrote := w.Written(); err == nil || len(wrote) > 0 {
		t.Fatalf("without --yes, it wrote %q: %v", wrote, err)
	}
	contains(stderr, "add --yes")
	contains(stderr, "+ create IAM user")
	contains(stderr, "cluster "+cluster+" in account "+w.account+", region "+region)

	// --export writes only files.
	files := w.export()
	if wrote := w.Written(); len(wrote) > 0 {
		t.Fatalf("--export wrote %q to AWS", wrote)
	}
	for name, want := range map[string]string{"CASTKopsPolicyV2.json": "CreateWithTheTag", "CASTKopsCluster.json": "function:cast-kops-", "CASTKopsBoundary.json": "Allow", "trust.json": "lambda.amazonaws.com",
		"CASTKopsRestrictedaccess.json": cluster, "CASTKopsHandler.json": "secret:cast-kops/" + cluster + "/token-AbCdEf", "CASTKopsRuntime.json": "logs:",
		"user-tags.json": `"Value": "` + cluster + `"`, "rbac.yaml": "kind: ClusterRoleBinding",
		"token.yaml": "kubernetes.io/service-account-token", "kustomization.yaml": "- token.yaml"} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not contain %q:\n%s", name, want, files[name])
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("exported: %q", files)
	}
	if files := w.export("--karpenter"); !strings.Contains(files["rbac.yaml"], "kops-spot-karpenter") {
		t.Errorf("the permissions of --karpenter are missing:\n%s", files["rbac.yaml"])
	}
	_, stderr, err = w.command("onboard", "--set", "SubnetIds=subnet-01234567", "--yes")
	if wrote := w.Written(); err == nil || len(wrote) > 0 {
		t.Errorf("another VPC's subnet: %v, wrote %q", err, wrote)
	}
	contains(stderr, "is not in the cluster's VPC")

	// The first run. The cluster has no authenticator, so the function authenticates with a token.
	first := w.succeed("onboard", "--cluster", cluster, "--region", region)
	if !first.Applied || first.AccessKeyID == "" || first.Credentials != nil || first.Findings.Failed() {
		t.Errorf("the first run: %+v", first)
	}
	w.storesToken()
	policy := strings.Join(of(w.snapshot(), "role CastLambdaRoleForSpot"), "\n")
	if !regexp.MustCompile(`secretsmanager:GetSecretValue", "Resource": \[ "arn:aws:secretsmanager:` + region + `:` + w.account + `:secret:cast-kops/` + cluster + `/token-[A-Za-z0-9]{6}"`).MatchString(policy) {
		t.Errorf("the function is not allowed to read its token:\n%s", policy)
	}
	w.withinInstallerPolicy()
	onboarded := w.snapshot()

	// The second run.
	w.Reset()
	changed := versions(t)
	if second := w.succeed("onboard"); second.Applied || second.AccessKeyID != "" {
		t.Errorf("the second run: %+v", second)
	}
	if wrote := w.Written(); len(wrote) > 0 {
		t.Errorf("the second run wrote %q", wrote)
	}
	if now := versions(t); now != changed {
		t.Errorf("the second run changed the cluster:\n%s\n%s", changed, now)
	}

	// A new key, and another one that is printed.
	if out, stderr, err := w.command("onboard", "--rotate-key", "--yes"); err != nil || !strings.Contains(out, w.stored(cluster).ID) {
		t.Errorf("the new key is not named: %v\n%s%s", err, out, stderr)
	}
	out, stderr, err := w.command("onboard", "--rotate-key", "--print-credentials", "--yes")
	if k := w.stored(cluster); err != nil || k.ID == first.AccessKeyID || !strings.Contains(out, "SecretAccessKey="+k.Secret) {
		t.Errorf("the key is not printed: %v\n%s", err, stderr)
	}

	// Offboarding restores everything.
	w.Reset()
	if away := w.succeed("offboard"); !away.Applied || away.Findings.Failed() {
		t.Errorf("offboarding: %+v", away)
	}
	w.withinInstallerPolicy()
	w.unchanged("after offboarding", before)
	if d := difference(beforeInCluster, inCluster(t)); d != "" {
		t.Errorf("offboarding does not restore the cluster:\n%s", d)
	}
	w.Reset()
	if again := w.succeed("offboard"); again.Applied || len(w.Written()) > 0 {
		t.Errorf("the second offboarding: %+v, %q", again, w.Written())
	}

	t.Run("interrupted at each write", func(t *testing.T) {
		lines := w.kubeconfig() // through the line that is cut: what is written in the cluster counts too
		const writesAtOnce = 5  // fewer would never make a key: it takes four, and what the run before has left one
		var written []string
		for first := 1; first <= writesAtOnce; first++ { // so that each write is the last one once
			for try, n := 1, first; ; try, n = try+1, writesAtOnce {
				w.Reset()
				w.CutOff(n)
				_, stderr, err := w.commandWith(lines, "onboard", "--yes")
				written = append(written, w.Written()...)
				if err == nil {
					break
				}
				if try == len(onboarded) {
					t.Fatalf("no progress:\n%s", stderr)
				}
			}
			w.Reset()
			w.unchanged("interrupted", onboarded)
			w.storesToken()
			for n := first; ; n = writesAtOnce {
				w.Reset()
				w.CutOff(n)
				_, _, err := w.commandWith(lines, "offboard", "--yes")
				if err == nil {
					break
				}
			}
			w.Reset()
			w.unchanged("after offboarding", before)
			if d := difference(beforeInCluster, inCluster(t)); d != "" {
				t.Errorf("the interrupted offboarding does not restore the cluster:\n%s", d)
			}
		}
		if !slices.Contains(written, "kubernetes:POST") || !slices.Contains(written, "iam:CreateRole") {
			t.Errorf("some requests bypassed the proxy: %q", written)
		}
	})
	t.Run("missing permission", func(t *testing.T) {
		w.Reset()
		w.Denies(func(action string, _ url.Values) bool { return action == "iam:CreateRole" })
		_, stderr, err := w.command("onboard", "--yes")
		if err == nil {
			t.Fatal("the command succeeded")
		}
		for _, want := range []string{"allow iam:CreateRole on role CastLambdaRoleForSpot", "kops-spot onboard --export-installer-policy", "run this again to continue"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q is missing in:\n%s", want, stderr)
			}
		}
	})
}

// storesToken checks that Secrets Manager has the token of the function's ServiceAccount.
func (w *world) storesToken() {
	w.Helper()
	out := must(w.secrets().GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("cast-kops/" + cluster + "/token")}))
	var login struct{ Token, CA string }
	if err := json.Unmarshal([]byte(*out.SecretString), &login); err != nil || !strings.Contains(login.CA, "BEGIN CERTIFICATE") {
		w.Fatalf("invalid secret: %v", err)
	}
	in := must(cp().Client().CoreV1().Secrets("kube-system").Get(w.Context(), "kops-spot-token", metav1.GetOptions{}))
	if string(in.Data["token"]) != login.Token || login.Token == "" {
		w.Error("the stored token is not the cluster's")
	}
}

// withinInstallerPolicy checks that the installer policy allows every call that was made.
func (w *world) withinInstallerPolicy() {
	w.Helper()
	text, _ := w.mustRun("onboard", "--export-installer-policy")
	var policy struct {
		Statement []struct{ Action json.RawMessage }
	}
	try(json.Unmarshal([]byte(text), &policy))
	var allowed []string
	for _, s := range policy.Statement {
		var one string
		var several []string
		if json.Unmarshal(s.Action, &one) == nil {
			allowed = append(allowed, one)
		} else if err := json.Unmarshal(s.Action, &several); err != nil {
			w.Fatal(err)
		}
		allowed = append(allowed, several...)
	}
	for _, action := range w.Called() {
		if !slices.Contains(allowed, action) && !strings.HasPrefix(action, "sts:") { // GetCallerIdentity needs no permission
			w.Errorf("the installer policy does not allow %s", action)
		}
	}
}

func otherClusterRefused(t *testing.T) {
	w := newWorld(t)
	w.node(w.cluster(cluster))
	for name, c := range map[string]struct {
		tagged string // the cluster that the other account has
		want   string
	}{
		"the account has another cluster":             {otherCluster, "choose other credentials with AWS_PROFILE"},
		"the account has another cluster of the name": {cluster, "the account has other instances of a cluster of that name"},
	} {
		t.Run(name, func(t *testing.T) {
			other := newWorld(t)
			other.cluster(c.tagged)
			for _, command := range []string{"onboard", "offboard"} {
				_, stderr, err := other.command(command, "--yes")
				if wrote := other.Written(); err == nil || len(wrote) > 0 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, other.account) {
					t.Errorf("%s: %v, wrote %q and printed:\n%s", command, err, wrote, stderr)
				}
			}
		})
	}
	t.Run("another region", func(t *testing.T) {
		_, stderr, err := w.command("onboard", "--region", "us-east-1", "--yes")
		if err == nil || !strings.Contains(stderr, "--region is us-east-1") || len(w.Called()) > 0 {
			t.Errorf("%v, called %q and printed:\n%s", err, w.Called(), stderr)
		}
	})
}
