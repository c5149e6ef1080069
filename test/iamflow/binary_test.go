package iamflow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/test/testenv"
)

// command runs the real binary as an operator would, logged in to the control plane and to the account. What it says is kept,
// to be searched for secrets.
func (w *world) command(args ...string) (stdout, stderr string, err error) {
	w.Helper()
	return w.commandWith(nil, args...)
}

func (w *world) commandWith(environ []string, args ...string) (stdout, stderr string, err error) {
	w.Helper()
	c := must(w.cfg.Credentials.Retrieve(w.Context()))
	cmd := exec.CommandContext(w.Context(), shared.bin, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.TempDir(), "KUBECONFIG=" + shared.cp.Kubeconfig(),
		"AWS_ENDPOINT_URL=" + w.Proxy.URL, "AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_SESSION_TOKEN=" + c.SessionToken}, environ...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if !slices.Contains(args, "--print-credentials") {
		noteOutput(out.String())
	}
	noteOutput(errs.String())
	return out.String(), errs.String(), err
}

// kubeconfig is how the binary logs in to the control plane through the line that can be cut.
func (w *world) kubeconfig() []string {
	w.Helper()
	admin := shared.cp.AdminConfig()
	line := must(w.Proxy.Cluster(admin.Host, must(rest.TransportFor(admin))))
	w.Cleanup(line.Close)
	file := filepath.Join(w.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: %q}}]\n", line.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	return []string{"KUBECONFIG=" + file}
}

// node makes a node of the control plane for an instance.
func (w *world) node(instance string) {
	w.Helper()
	if err := shared.cp.CreateNodes(w.Context(), testenv.Node{InstanceID: instance, Zone: region + "a"}); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		err := shared.cp.Client().CoreV1().Nodes().Delete(context.Background(), instance, metav1.DeleteOptions{})
		if err != nil {
			w.Error(err)
		}
	})
}

// told is the result as JSON.
type told struct {
	Cluster, Account, Region string
	Plan                     change.Plan
	Applied                  bool
	AccessKeyID              string
	Findings                 change.Findings
	Credentials              *struct{ AccessKeyID, SecretAccessKey string }
}

func (w *world) told(args ...string) (t told) {
	w.Helper()
	stdout, stderr, err := w.command(append(args, "--output", "json", "--yes")...)
	if err != nil {
		w.Fatalf("kops-spot %q: %v\n%s", args, err, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &t); err != nil {
		w.Fatalf("kops-spot %q says %q: %v", args, stdout, err)
	}
	return t
}

// export has the binary export, into a directory with a file of somebody else's, and returns its files.
func (w *world) export(args ...string) map[string]string {
	w.Helper()
	dir := filepath.Join(w.TempDir(), "onboard")
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	for name, text := range map[string]string{"mine.json": "mine", "user-tags.json": "of an earlier export"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	stdout, stderr, err := w.command(append([]string{"onboard", "--cluster", clusterA, "--export", dir}, args...)...)
	if err != nil {
		w.Fatalf("%v\n%s", err, stderr)
	}
	files := map[string]string{}
	for _, entry := range must(os.ReadDir(dir)) {
		path := filepath.Join(dir, entry.Name())
		files[entry.Name()] = string(must(os.ReadFile(path)))
		if said := strings.Contains(stdout, path+"\n"); said == (entry.Name() == "mine.json") {
			w.Errorf("that %s was written is said: %t", entry.Name(), said)
		}
	}
	if files["mine.json"] != "mine" {
		w.Error("the file of somebody else was overwritten")
	}
	delete(files, "mine.json")
	return files
}

// TestTheBinary is an operator's way, from the first run to the last, on the real control plane. Only here is something done in
// it: its parts follow one another.
func TestTheBinary(t *testing.T) {
	w := newWorld(t)
	instance := w.cluster(clusterA)
	w.node(instance)
	before, beforeInCluster := w.snapshot(), inCluster(t)
	said := func(stderr, want string) {
		t.Helper()
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not said in:\n%s", want, stderr)
		}
	}

	// Nobody is asked where there is no terminal, and nothing is changed.
	_, stderr, err := w.command("onboard", "--cluster", clusterA)
	if wrote := w.Written(); err == nil || len(wrote) > 0 {
		t.Fatalf("without a yes it goes on and has written %q: %v", wrote, err)
	}
	said(stderr, "add --yes")
	said(stderr, "+ create IAM user")
	said(stderr, "cluster "+clusterA+" in account "+w.account+", region "+region)

	// What it would write, as files, and nothing more.
	files := w.export()
	if wrote := w.Written(); len(wrote) > 0 {
		t.Fatalf("--export has written %q", wrote)
	}
	for name, want := range map[string]string{"CASTKopsPolicyV2.json": "RunWithTheTag", "CASTKopsBoundary.json": "Allow", "trust.json": "lambda.amazonaws.com",
		"CASTKopsRestrictedaccess.json": clusterA, "CASTKopsHandler.json": "secret:cast-kops/" + clusterA + "/token-AbCdEf", "CASTKopsRuntime.json": "logs:",
		"user-tags.json": `"Value": "` + clusterA + `"`, "rbac.yaml": "kind: ClusterRoleBinding",
		"token.yaml": "kubernetes.io/service-account-token"} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not have %q:\n%s", name, want, files[name])
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("what else is exported: %q", files)
	}
	if files := w.export("--karpenter"); !strings.Contains(files["rbac.yaml"], "kops-spot-karpenter") {
		t.Errorf("what --karpenter asks for is not there:\n%s", files["rbac.yaml"])
	}
	_, stderr, err = w.command("onboard", "--cluster", clusterA, "--subnets", "subnet-01234567", "--yes")
	if wrote := w.Written(); err == nil || len(wrote) > 0 {
		t.Errorf("subnets without security groups: %v, and has written %q", err, wrote)
	}
	said(stderr, "--subnets and --security-groups go together")

	// The first run; the cluster has no authenticator, so the function logs in with a token.
	first := w.told("onboard", "--cluster", clusterA, "--region", region)
	if !first.Applied || first.AccessKeyID == "" || first.Credentials != nil || first.Findings.Failed() {
		t.Errorf("the first run: %+v", first)
	}
	w.storesToken()
	policy := strings.Join(of(w.snapshot(), "role CastLambdaRoleForSpot"), "\n")
	if !regexp.MustCompile(`secretsmanager:GetSecretValue", "Resource": \[ "arn:aws:secretsmanager:` + region + `:` + w.account + `:secret:cast-kops/` + clusterA + `/token-[A-Za-z0-9]{6}"`).MatchString(policy) {
		t.Errorf("the function may not read its token:\n%s", policy)
	}
	w.withinInstallerPolicy()
	onboarded := w.snapshot()

	// The second.
	w.Reset()
	changed := inCluster(t)
	if second := w.told("onboard", "--cluster", clusterA); second.Applied || second.AccessKeyID != "" {
		t.Errorf("the second run: %+v", second)
	}
	if wrote := w.Written(); len(wrote) > 0 {
		t.Errorf("the second run has written %q", wrote)
	}
	if now := inCluster(t); now != changed {
		t.Errorf("the second run has changed the cluster: %s", difference(changed, now))
	}

	// A new key; and one more, printed because that was asked for.
	if out, stderr, err := w.command("onboard", "--cluster", clusterA, "--rotate-key", "--yes"); err != nil || !strings.Contains(out, w.stored(clusterA).ID) {
		t.Errorf("the key that was made is not named: %v\n%s%s", err, out, stderr)
	}
	out, stderr, err := w.command("onboard", "--cluster", clusterA, "--rotate-key", "--print-credentials", "--yes")
	if k := w.stored(clusterA); err != nil || k.ID == first.AccessKeyID || !strings.Contains(out, "SecretAccessKey="+k.Secret) {
		t.Errorf("the key is not printed though that was asked for: %v\n%s", err, stderr)
	}

	// Away again, and all is as it was.
	w.Reset()
	if away := w.told("offboard", "--cluster", clusterA); !away.Applied || away.Findings.Failed() {
		t.Errorf("offboarding: %+v", away)
	}
	w.withinInstallerPolicy()
	w.isAsItWas(before)
	if d := difference(beforeInCluster, inCluster(t)); d != "" {
		t.Errorf("offboarding does not leave the cluster as it was:\n%s", d)
	}
	w.Reset()
	if again := w.told("offboard", "--cluster", clusterA); again.Applied || len(w.Written()) > 0 {
		t.Errorf("the second offboarding: %+v, %q", again, w.Written())
	}

	t.Run("broken off again and again, it comes to its end", func(t *testing.T) {
		lines := w.kubeconfig() // through the line that is cut: what is written in the cluster counts too
		const writesAtOnce = 5  // fewer would never make a key: it takes four, and what the run before has left one
		var written []string
		for first := 1; first <= writesAtOnce; first++ { // so that each write is the last one once
			for try, n := 1, first; ; try, n = try+1, writesAtOnce {
				w.Reset()
				w.CutOff(n)
				_, stderr, err := w.commandWith(lines, "onboard", "--cluster", clusterA, "--yes")
				written = append(written, w.Written()...)
				if err == nil {
					break
				}
				if try == len(onboarded) {
					t.Fatalf("it does not get any further:\n%s", stderr)
				}
			}
			w.Reset()
			if d := difference(variable(onboarded), variable(w.snapshot())); d != "" {
				t.Errorf("it comes out otherwise than in one go:\n%s", d)
			}
			w.storesToken()
			for n := first; ; n = writesAtOnce {
				w.Reset()
				w.CutOff(n)
				_, _, err := w.commandWith(lines, "offboard", "--cluster", clusterA, "--yes")
				if err == nil {
					break
				}
			}
			w.Reset()
			w.isAsItWas(before)
			if d := difference(beforeInCluster, inCluster(t)); d != "" {
				t.Errorf("offboarding that was broken off does not leave the cluster as it was:\n%s", d)
			}
		}
		if !slices.Contains(written, "kubernetes:POST") || !slices.Contains(written, "iam:CreateRole") {
			t.Errorf("one half of it went past the line: %q", written)
		}
	})
	t.Run("a missing permission is named", func(t *testing.T) {
		w.Reset()
		w.Denies(func(action string, _ url.Values) bool { return action == "iam:CreateRole" })
		_, stderr, err := w.command("onboard", "--cluster", clusterA, "--yes")
		if err == nil {
			t.Fatal("it goes on")
		}
		for _, want := range []string{"what is missing is iam:CreateRole on role CastLambdaRoleForSpot", "kops-spot onboard --export-installer-policy", "the next run goes on from there"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q is not said in:\n%s", want, stderr)
			}
		}
	})
}

var tokenARN = regexp.MustCompile(`/token-[A-Za-z0-9]{6}`)

// variable is a snapshot without what differs from run to run.
func variable(snapshot []string) string {
	return tokenARN.ReplaceAllString(alike(snapshot), "/token-…")
}

// storesToken looks whether the token in Secrets Manager is the one of the function's ServiceAccount.
func (w *world) storesToken() {
	w.Helper()
	out := must(w.secrets().GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("cast-kops/" + clusterA + "/token")}))
	var login struct{ Token, CA string }
	if err := json.Unmarshal([]byte(*out.SecretString), &login); err != nil || !strings.Contains(login.CA, "BEGIN CERTIFICATE") {
		w.Fatalf("the secret is no log-in: %v", err)
	}
	in := must(shared.cp.Client().CoreV1().Secrets("kube-system").Get(w.Context(), "kops-spot-token", metav1.GetOptions{}))
	if string(in.Data["token"]) != login.Token || login.Token == "" {
		w.Error("the token that is stored is not the cluster's")
	}
}

// inCluster is what onboarding could touch of the cluster.
func inCluster(t *testing.T) string {
	t.Helper()
	var lines []string
	client := shared.cp.Client()
	for _, c := range must(client.CoreV1().ConfigMaps("kube-system").List(t.Context(), metav1.ListOptions{})).Items {
		lines = append(lines, fmt.Sprintf("ConfigMap %s %v", c.Name, c.Data))
	}
	for _, s := range must(client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{})).Items {
		lines = append(lines, fmt.Sprintf("Secret %s %s", s.Name, s.ResourceVersion))
	}
	for _, s := range must(client.CoreV1().ServiceAccounts("kube-system").List(t.Context(), metav1.ListOptions{})).Items {
		lines = append(lines, "ServiceAccount "+s.Name)
	}
	role, err := client.RbacV1().ClusterRoles().Get(t.Context(), "kops-spot", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		lines = append(lines, fmt.Sprintf("ClusterRole %v %v", role.Rules, err))
	}
	return strings.Join(lines, "\n")
}

// withinInstallerPolicy holds every call that was made to the policy that is said to be all that it takes.
func (w *world) withinInstallerPolicy() {
	w.Helper()
	text, stderr, err := w.command("onboard", "--cluster", clusterA, "--export-installer-policy")
	if err != nil {
		w.Fatalf("%v\n%s", err, stderr)
	}
	var policy struct {
		Statement []struct{ Action json.RawMessage }
	}
	if err := json.Unmarshal([]byte(text), &policy); err != nil {
		w.Fatal(err)
	}
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
			w.Errorf("the installer's policy does not allow %s, which was called", action)
		}
	}
}

func TestKubeconfigAndCredentialsOfTwoClustersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.node(w.cluster(clusterA))
	for name, c := range map[string]struct {
		tagged string // the cluster that the other account has
		want   string
	}{
		"the account has another cluster":             {clusterB, "it is the credentials that lead elsewhere"},
		"the account has another cluster of the name": {clusterA, "it is the kubeconfig that leads elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			other := newWorld(t)
			other.cluster(c.tagged)
			for _, command := range []string{"onboard", "offboard"} {
				_, stderr, err := other.command(command, "--cluster", clusterA, "--yes")
				if wrote := other.Written(); err == nil || len(wrote) > 0 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, other.account) {
					t.Errorf("%s: %v, has written %q and said:\n%s", command, err, wrote, stderr)
				}
			}
		})
	}
	t.Run("another region is said", func(t *testing.T) {
		_, stderr, err := w.command("onboard", "--cluster", clusterA, "--region", "us-east-1", "--yes")
		if err == nil || !strings.Contains(stderr, "--region says us-east-1") || len(w.Called()) > 0 {
			t.Errorf("%v, has called %q and said:\n%s", err, w.Called(), stderr)
		}
	})
}
