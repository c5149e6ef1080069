package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Moto is a server of moto, the Python mock of AWS. Stop it with Stop.
type Moto struct {
	URL string

	cmd     *exec.Cmd
	log     string
	tempDir string // to be removed; empty when the caller chose the directory
}

// startMoto starts the server with the AWS managed policies given as arguments: loading all takes three seconds per
// account. For each request, moto lists its modules and a module's methods: not repeating that saves a quarter of the
// time.
const startMoto = `
import functools, json, os, sys, threading
import moto.iam.models as iam
from moto import backends
from moto.core import responses
policies = json.loads(iam.aws_managed_policies_data)
iam.aws_managed_policies_data = json.dumps({name: policies[name] for name in [arg.split("/")[-1] for arg in sys.argv[1:]]})
iam.load_iam_aws_managed_policies = lambda: True
modules = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: modules
responses.method_names_from_class = functools.cache(responses.method_names_from_class)
from moto.server import main
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main(["-H", "127.0.0.1", "-p", "0"])
`

// StartMoto starts a moto server with the given AWS managed policies on a free port. It logs to dir; empty is a
// temporary directory that Stop removes. `make tools` installs moto.
func StartMoto(ctx context.Context, dir string, policies ...string) (*Moto, error) {
	m := &Moto{}
	if dir == "" {
		var err error
		if m.tempDir, err = os.MkdirTemp("", "moto-"); err != nil {
			return nil, fmt.Errorf("starting moto: %w", err)
		}
		dir = m.tempDir
	}
	m.log = filepath.Join(dir, "moto.log")
	log, err := os.Create(m.log)
	if err != nil {
		return nil, fmt.Errorf("starting moto: %w", err)
	}
	defer log.Close()
	m.cmd = exec.Command("python3", slices.Concat([]string{"-c", startMoto}, policies)...)
	m.cmd.Env = append(os.Environ(), "MOTO_EC2_LOAD_DEFAULT_AMIS=false") // not needed, and loading takes seconds
	// Kill the server when this process exits.
	if _, err := m.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting moto: %w", err)
	}
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting moto: %w", err)
	}
	if m.URL, err = m.address(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting moto: %w", err), m.Stop())
	}
	return m, nil
}

// address waits until moto logs its port. A port chosen in advance could be taken by then.
func (m *Moto) address(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, after, _ := strings.Cut(m.Log(), "Running on ")
		if url, _, whole := strings.Cut(after, "\n"); whole {
			return url, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no address in its log (run `make tools` to install moto): %w\n%s", ctx.Err(),
				m.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log returns the server's log so far.
func (m *Moto) Log() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Stop stops the server.
func (m *Moto) Stop() error {
	if err := syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping moto: %w", err)
	}
	_ = m.cmd.Wait() // "signal: killed" is expected
	if m.tempDir != "" {
		return os.RemoveAll(m.tempDir)
	}
	return nil
}
