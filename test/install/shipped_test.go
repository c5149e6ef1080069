package install

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

// TestTheShippedProgramCarriesTheFunction: who has nothing but it deploys the code that make dist has made.
func TestTheShippedProgramCarriesTheFunction(t *testing.T) {
	world.cut.Reset()
	if said, err := exec.Command("make", "--no-print-directory", "-C", template.Root(), "cli").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	built := world.bin
	world.bin = filepath.Join(template.Root(), "dist", "kops-spot")
	defer func() { world.bin = built }()
	for architecture, zip := range map[string]string{"arm64": "arm64", "x86_64": "amd64"} {
		zips, err := filepath.Glob(filepath.Join(template.Root(), "dist", "kops-spot-*-"+zip+".zip"))
		if err != nil || len(zips) != 1 {
			t.Fatalf("%q, %v", zips, err)
		}
		code, err := os.ReadFile(zips[0])
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(code)
		dir := t.TempDir()
		must(t, "install", "--export", dir, "--set", "Architecture="+architecture)
		text, err := os.ReadFile(filepath.Join(dir, "template.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if key := "/" + hex.EncodeToString(sum[:8]) + ".zip"; !strings.Contains(string(text), "CodeUri: s3://cast-kops-code-"+account+"-"+region+"/prod-example-com-7405b025"+key) {
			t.Errorf("%s: the template does not deploy %s", architecture, key)
		}
	}
	world.bin = built
	if _, stderr, err := kopsSpot(t, "install", "--export", t.TempDir()); err == nil || !strings.Contains(stderr, "this program was built without the function's code for arm64: make cli") {
		t.Errorf("a program without the code: %v\n%s", err, stderr)
	}
}
