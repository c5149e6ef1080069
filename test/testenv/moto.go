package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Moto is a server of the Python package moto, which plays AWS. It ends with Stop.
type Moto struct {
	URL string

	cmd *exec.Cmd
	log string
}

// StartMoto starts a moto server on a port of its own; its log is kept in dir. `make tools` installs moto.
func StartMoto(ctx context.Context, dir string) (*Moto, error) {
	m := &Moto{log: filepath.Join(dir, "moto.log")}
	log, err := os.Create(m.log)
	if err != nil {
		return nil, fmt.Errorf("starting moto: %w", err)
	}
	defer log.Close()
	m.cmd = exec.Command("python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
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

// address waits until moto says on which port it is: one chosen beforehand could be somebody else's by then.
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
			return "", fmt.Errorf("it did not say where it runs (`make tools` installs it): %w\n%s", ctx.Err(), m.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log is what the server has said so far.
func (m *Moto) Log() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Stop ends the server.
func (m *Moto) Stop() error {
	if err := syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping moto: %w", err)
	}
	_ = m.cmd.Wait() // killed, which is what was wanted
	return nil
}
