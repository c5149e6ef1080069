package iamflow

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheExportedScript does what onboarding does: after it, onboarding finds nothing to change but the access key, whose secret
// the script shows to nobody and stores nowhere.
func TestTheExportedScript(t *testing.T) {
	for _, tool := range []string{"aws", "kubectl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: the exported script is for these: install the AWS CLI, kubectl and jq", err)
		}
	}
	w := newWorld(t)
	w.node(w.cluster(clusterA))
	script, stderr, err := w.command("onboard", "--cluster", clusterA, "--export")
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "onboard.sh"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	c := must(w.cfg.Credentials.Retrieve(t.Context()))
	bash := exec.CommandContext(t.Context(), "bash", "onboard.sh")
	bash.Dir = dir
	bash.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "KUBECONFIG=" + shared.cp.Kubeconfig(), "AWS_ENDPOINT_URL=" + w.Proxy.URL, "AWS_PAGER=",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_SESSION_TOKEN=" + c.SessionToken}
	said, err := bash.CombinedOutput()
	noteOutput(string(said))
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, said, script)
	}
	defer func() {
		w.Reset()
		w.told("offboard", "--cluster", clusterA)
	}()
	after := w.told("onboard", "--cluster", clusterA)
	for _, one := range after.Plan {
		if one.Changes() {
			t.Errorf("after the script there is still to %s %s %s: %s", one.Verb, one.Kind, one.Name, strings.Join(one.Diff, "\n"))
		}
	}
	w.storesToken()
}
