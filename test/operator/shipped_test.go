package operator

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/test/template"
)

// shippedProgram: the program of make cli deploys the embedded code of make dist.
func shippedProgram(t *testing.T) {
	w := home(t)
	if _, stderr, err := w.command("install", "--export", t.TempDir()); err == nil || !strings.Contains(stderr, "this binary does not contain the function's code for arm64: build one that does with make cli") {
		t.Errorf("program without code: %v\n%s", err, stderr)
	}
	if said, err := exec.Command("make", "--no-print-directory", "-C", template.Root(), "cli").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	w.program = filepath.Join(template.Root(), "dist", "kops-spot")
	for architecture, zip := range map[string]string{"arm64": "arm64", "x86_64": "amd64"} {
		zips := must(filepath.Glob(filepath.Join(template.Root(), "dist", "kops-spot-*-"+zip+".zip")))
		if len(zips) != 1 {
			t.Fatalf("%q", zips)
		}
		sum := sha256.Sum256(must(os.ReadFile(zips[0])))
		dir := t.TempDir()
		w.mustRun("install", "--export", dir, "--set", "Architecture="+architecture)
		if key := "/" + hex.EncodeToString(sum[:8]) + ".zip"; !strings.Contains(w.files(dir)["template.yaml"], "CodeUri: s3://cast-kops-code-"+account+"-"+region+"/prod-example-com-7405b0253a21"+key) {
			t.Errorf("%s: the template does not deploy %s", architecture, key)
		}
	}
}
