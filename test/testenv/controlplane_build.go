package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// KubernetesVersion is the version that the API server reports: that of k8s.io/kubernetes in go.mod.
const KubernetesVersion = "v1.37.2"

// BuildControlPlane builds the control plane and returns its path. This takes a second with a warm Go cache, ten after
// a change in this module, and minutes the first time. log receives the progress of a long build.
func BuildControlPlane(ctx context.Context, log io.Writer) (string, error) {
	return buildProgram(ctx, log, "controlplane", "the test control plane", "-ldflags", versionFlags(KubernetesVersion))
}

// BuildAuthenticator builds the authenticator and returns its path.
func BuildAuthenticator(ctx context.Context, log io.Writer) (string, error) {
	return buildProgram(ctx, log, "authenticator", "the test authenticator", "-ldflags", "-s -w")
}

// buildCommand returns a command that compiles. Canceling ctx interrupts it and its compilers, as Ctrl-C does, so that
// they remove their temporary files.
func buildCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// buildProgram builds a command of this module and returns its path. log receives the progress of a long build. flags
// are for go build.
func buildProgram(ctx context.Context, log io.Writer, name, what string, flags ...string) (string, error) {
	dir, err := moduleDir()
	if err != nil {
		return "", fmt.Errorf("finding the test module: %w", err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(bin, name+".lock"), log, "waiting for another process to build "+what)
	if err != nil {
		return "", err
	}
	defer unlock()

	program := filepath.Join(bin, name)
	// The Makefile uses the same flags, so that the build cache is shared.
	flags = append([]string{"build", "-gcflags=all=-dwarf=false", "-o", program}, flags...)
	build := buildCommand(ctx, "go", append(flags, "./cmd/"+name)...)
	build.Dir = dir
	// A workspace would replace this module's pinned versions.
	build.Env = append(os.Environ(), "GOWORK=off")
	quiet := progress(log, "building "+what)
	out, err := build.CombinedOutput()
	quiet()
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return program, nil
}

// versionFlags returns linker flags that set the version. Without them, the API server reports v0.0.0-master, which
// clients reject as too old.
func versionFlags(version string) string {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range [][2]string{
			{"gitVersion", version},
			{"gitMajor", parts[0]},
			{"gitMinor", parts[1]},
			{"gitTreeState", "clean"},
		} {
			flags = append(flags, "-X", pkg+"."+v[0]+"="+v[1])
		}
	}
	return strings.Join(flags, " ")
}

// moduleDir returns the directory of this module: from the compiled-in path, or from the go command if paths are
// trimmed.
func moduleDir() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok {
		dir := filepath.Dir(filepath.Dir(file))
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/castai/kops-spot/test").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lock waits for an exclusive file lock, so that concurrent builds do not both compile everything. The kernel releases
// the lock when the process exits.
func lock(ctx context.Context, name string, log io.Writer, waiting string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	quiet := progress(log, waiting)
	defer quiet()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// progress logs what is happening after three seconds, then every ten seconds, until quiet is called.
func progress(log io.Writer, what string) (quiet func()) {
	begin := time.Now()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		next := time.NewTimer(3 * time.Second)
		defer next.Stop()
		for {
			select {
			case <-done:
				return
			case <-next.C:
				fmt.Fprintf(log, "%s: %v\n", what, time.Since(begin).Round(time.Second))
				next.Reset(10 * time.Second)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
