package operator

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/test/template"
	"github.com/castai/kops-spot/test/testenv"
)

// released is the directory dist after make release, for the platform of this computer.
var released = testenv.Once(func(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", template.Root(), "release", "TARGETS="+runtime.GOOS+"/"+runtime.GOARCH)
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, said)
	}
	return filepath.Join(template.Root(), "dist"), nil
}, nil)

func releasedVersion() string { return strings.TrimSpace(repositoryFile("VERSION")) }

// archive is the name of the command's archive for this computer, without .tar.gz.
func archive() string {
	return "kops-spot-" + releasedVersion() + "-" + runtime.GOOS + "-" + runtime.GOARCH
}

// lambdaZip is the file with the function's code in a release, as Go names the architecture.
func lambdaZip(arch string) string {
	return "kops-spot-" + releasedVersion() + "-lambda-" + arch + ".zip"
}

// TestRelease: the release has the files that the documentation names, and what is in them.
func TestRelease(t *testing.T) {
	t.Parallel()
	release := filepath.Join(released(), "release")
	read := func(file string) string { return string(must(os.ReadFile(filepath.Join(release, file)))) }

	sums := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	sums.Dir = release
	if said, err := sums.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	var summed []string
	for line := range strings.Lines(read("SHA256SUMS")) {
		summed = append(summed, strings.TrimSpace(line[sha256.Size*2+2:]))
	}
	want := []string{archive() + ".cdx.json", archive() + ".tar.gz", "castai-agent.yaml", "rbac-karpenter.yaml", "rbac.yaml", "template.yaml"}
	for _, arch := range []string{"amd64", "arm64"} {
		bom := strings.TrimSuffix(lambdaZip(arch), ".zip") + ".cdx.json"
		checkSBOM(t, filepath.Join(released(), arch, "bootstrap"), filepath.Join(release, bom))
		want = append(want, lambdaZip(arch), bom)
	}
	slices.Sort(want)
	if slices.Sort(summed); !slices.Equal(summed, want) || len(must(os.ReadDir(release))) != len(want)+1 {
		t.Errorf("SHA256SUMS names %q, want %q and no other file", summed, want)
	}
	for file, source := range map[string]string{"castai-agent.yaml": "deploy/agent/agent.yaml", "rbac-karpenter.yaml": "deploy/rbac-karpenter.yaml", "rbac.yaml": "deploy/rbac.yaml"} {
		if read(file) != repositoryFile(source) {
			t.Errorf("%s is not %s", file, source)
		}
	}
	if packaged := read("template.yaml"); strings.Count(packaged, "CodeUri: s3://BUCKET/KEY\n") != 1 ||
		strings.Replace(packaged, "s3://BUCKET/KEY", ".", 1) != repositoryFile("template.yaml") {
		t.Error("template.yaml is not the template with placeholders for the code")
	}
	if notes := read("../release-notes.md"); !strings.Contains(notes, "\n### Added\n") ||
		strings.Contains(notes, "\n## ") || !strings.Contains(notes, "](https://github.com/castai/kops-spot/blob/v"+releasedVersion()+"/docs/cli/README.md)") {
		t.Errorf("the release notes are\n%s", notes)
	}

	folder := t.TempDir()
	if got, want := unpack(t, filepath.Join(release, archive()+".tar.gz"), folder), []string{"", "LICENSE", "completions", "completions/_kops-spot",
		"completions/kops-spot.bash", "completions/kops-spot.fish", "completions/kops-spot.ps1", "kops-spot", "man", "man/kops-spot.1"}; !slices.Equal(got, want) {
		t.Errorf("the archive has the files %q, want %q", got, want)
	}
	folder = filepath.Join(folder, archive())
	for file, want := range map[string]string{"LICENSE": "Apache License", "completions/_kops-spot": "#compdef kops-spot\n", "completions/kops-spot.bash": "complete -o default",
		"completions/kops-spot.fish": "complete -c kops-spot", "completions/kops-spot.ps1": "Register-ArgumentCompleter",
		"man/kops-spot.1": ".TH kops-spot 1 \"\" \"kops-spot " + releasedVersion() + "\"\n.SH NAME\n"} {
		if text := string(must(os.ReadFile(filepath.Join(folder, file)))); !strings.Contains(text, want) {
			t.Errorf("%s does not contain %q:\n%.2000s", file, want, text)
		}
	}
	checkSBOM(t, filepath.Join(folder, "kops-spot"), filepath.Join(release, archive()+".cdx.json"))
}

// shippedProgram: with nothing but the released archive and coreutils, kops-spot installs the function.
func shippedProgram(t *testing.T) {
	w := home(t)
	if _, stderr, err := w.command("install", "--export", t.TempDir()); err == nil ||
		!strings.Contains(stderr, "this binary does not contain the function's code for arm64: use a released kops-spot, build one with make cli") {
		t.Errorf("program without code: %v\n%s", err, stderr)
	}
	folder, coreutils := t.TempDir(), onlyCoreutils(t)
	unpack(t, filepath.Join(released(), "release", archive()+".tar.gz"), folder)
	w.program = filepath.Join(folder, archive(), "kops-spot")
	run := func(args ...string) string {
		t.Helper()
		stdout, stderr, err := w.commandWith([]string{"PATH=" + coreutils}, args...)
		if err != nil {
			t.Fatalf("kops-spot %q: %v\n%s%s", args, err, stdout, stderr)
		}
		return stdout + stderr
	}
	if said := run("version"); said != releasedVersion()+"\n" {
		t.Errorf("version prints %q", said)
	}
	if said := run("install", "--help"); !strings.Contains(said, "kops-spot install [flags]") {
		t.Errorf("install --help prints\n%s", said)
	}
	before := w.snapshot()
	for architecture, arch := range map[string]string{"arm64": "arm64", "x86_64": "amd64"} {
		sum := sha256.Sum256(must(os.ReadFile(filepath.Join(released(), "release", lambdaZip(arch)))))
		key := "prod-example-com-7405b0253a21/" + hex.EncodeToString(sum[:8]) + ".zip"
		dir := t.TempDir()
		run("install", "--export", dir, "--set", "Architecture="+architecture)
		if !strings.Contains(string(must(os.ReadFile(filepath.Join(dir, "template.yaml")))), "CodeUri: s3://cast-kops-code-"+account+"-"+region+"/"+key+"\n") {
			t.Errorf("%s: the template does not deploy %s", architecture, key)
		}
		if arch != runtime.GOARCH { // the function runs here
			continue
		}
		if said := run("install", "--yes", "--set", "Architecture="+architecture); !strings.Contains(said, key) ||
			!strings.Contains(said, "is installed: it handles the next interruption") {
			t.Errorf("install prints\n%s", said)
		}
	}
	w.quiet()
	run("uninstall", "--yes")
	w.unchanged("after uninstall", before)
}

// TestReleaseRefused: a release needs a version, the same as the commit's, and its notes.
func TestReleaseRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	try(os.Mkdir(filepath.Join(dir, "tools"), 0o755))
	try(os.WriteFile(filepath.Join(dir, "tools", "release"), []byte(repositoryFile("tools/release")), 0o755))
	try(os.WriteFile(filepath.Join(dir, "CHANGELOG.md"), []byte("# Changelog\n\n## Unreleased: 1.3.0\n\n- New.\n\n## 1.2.10 - 2026-12-01\n\n- Old.\n"), 0o644))
	for _, c := range []struct{ version, committed, want string }{
		{"1.2", "1.2", "release: version 1.2: use MAJOR.MINOR.PATCH"},
		{"v1.2.10", "v1.2.10", "release: version v1.2.10: use MAJOR.MINOR.PATCH"},
		{"1.2.10", "1.3.0-dev", "release: version 1.2.10: the file VERSION says 1.3.0-dev: commit the version first"},
		{"1.2.1", "1.2.1", `release: version 1.2.1: CHANGELOG.md has no section "## 1.2.1": write it`},
		{"1.3.0", "1.3.0", `release: version 1.3.0: CHANGELOG.md has no section "## 1.3.0": write it`},
		{"1.2.10-rc.1", "1.2.10-rc.1", `has no section "## Unreleased: 1.2.10"`},
		{"1.2.10", "1.2.10", "No rule to make target 'cli'"}, // nothing is wrong until it builds
		{"1.3.0-rc.1", "1.3.0-rc.1", "No rule to make target 'cli'"},
	} {
		try(os.WriteFile(filepath.Join(dir, "VERSION"), []byte(c.committed+"\n"), 0o644))
		said, err := exec.Command(filepath.Join(dir, "tools", "release"), c.version, "linux/amd64").CombinedOutput()
		if err == nil || !strings.Contains(string(said), c.want) {
			t.Errorf("version %s, VERSION %s: %v, want %q\n%s", c.version, c.committed, err, c.want, said)
		}
	}
}

func repositoryFile(name string) string {
	return string(must(os.ReadFile(filepath.Join(template.Root(), name))))
}

// onlyCoreutils returns a directory with some programs of GNU coreutils, and nothing else.
func onlyCoreutils(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"cat", "env", "ls", "sha256sum", "uname"} {
		try(os.Symlink(must(exec.LookPath(name)), filepath.Join(dir, name)))
	}
	return dir
}

// unpack unpacks an archive into a directory and returns the names of its entries below the only directory at its top.
// It checks what makes archives differ between builders.
func unpack(t *testing.T, archive, dir string) (names []string) {
	f := must(os.Open(archive))
	defer f.Close()
	z := must(gzip.NewReader(f))
	top := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		try(err)
		name, below := strings.CutPrefix(path.Clean(h.Name), top)
		names = append(names, strings.TrimPrefix(name, "/"))
		mode, executable := int64(0o644), h.Typeflag == tar.TypeDir || name == "/kops-spot"
		if executable {
			mode = 0o755
		}
		if !below || h.Mode != mode || h.Uid != 0 || h.Gid != 0 || h.Uname+h.Gname != "" || !h.ModTime.Equal(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s is of %d:%d (%s:%s), mode %o, at %v", h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.Mode, h.ModTime)
		}
		if to := filepath.Join(dir, filepath.FromSlash(h.Name)); h.Typeflag == tar.TypeDir {
			try(os.MkdirAll(to, 0o755))
		} else {
			try(os.WriteFile(to, must(io.ReadAll(r)), os.FileMode(h.Mode)))
		}
	}
	if z.Name != "" || !z.ModTime.IsZero() {
		t.Errorf("the archive has the name %q and the time %v", z.Name, z.ModTime)
	}
	if !slices.IsSorted(names) {
		t.Errorf("the names are not sorted: %q", names)
	}
	return names
}

// checkSBOM checks that a bill of materials names what is linked into a program: its modules, Go's standard library
// and the program itself, each with its version.
func checkSBOM(t *testing.T, program, file string) {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	try(err)
	want := []string{"std " + info.GoVersion}
	for _, m := range info.Deps {
		want = append(want, m.Path+" "+m.Version)
	}
	type component struct{ Name, Version, PURL string }
	var bom struct {
		BOMFormat    string
		SerialNumber string
		Metadata     struct {
			Timestamp string
			Component component
		}
		Components []component
	}
	try(json.Unmarshal(must(os.ReadFile(file)), &bom))
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.Name+" "+c.Version)
		if !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("%s: %s has the package URL %q", file, c.Name, c.PURL)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(want) < 10 {
		t.Errorf("%s names\n%q\nwant\n%q", file, got, want)
	}
	if about := bom.Metadata.Component; bom.BOMFormat != "CycloneDX" || about.Name != "github.com/castai/kops-spot" || about.Version != "v"+releasedVersion() ||
		bom.SerialNumber+bom.Metadata.Timestamp != "" {
		t.Errorf("%s describes %+v, with serial number %q and time %q", file, about, bom.SerialNumber, bom.Metadata.Timestamp)
	}
}
