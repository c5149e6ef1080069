package testenv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a program of this module that prints one line of JSON when it is ready, and stops when its standard input
// is closed, even if this process crashes.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr tail
	exited chan struct{} // closed when the process has exited; err has the result
	err    error
	stop   func() error
}

// startProcess starts the program, waits until it is ready and decodes its line into ready. log receives its standard
// error. ctx limits only the start.
func startProcess(ctx context.Context, name, program string, log io.Writer, ready any, args ...string) (*process,
	error) {
	p := &process{name: name, cmd: exec.Command(program, args...), exited: make(chan struct{})}
	p.stop = sync.OnceValue(p.end)
	// In another process group, an interrupt at the terminal does not reach the program, so this process can stop it
	// properly.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = io.MultiWriter(&p.stderr, log)
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stdin = stdin
	line := make(chan []byte, 1)
	go func() {
		defer close(p.exited)
		out := bufio.NewReader(stdout)
		if first, err := out.ReadBytes('\n'); err == nil {
			line <- first
		}
		io.Copy(io.Discard, out)
		p.err = p.cmd.Wait()
	}()
	if err := p.await(ctx, line, ready); err != nil {
		_ = p.stop() // the first error says more
		return nil, err
	}
	return p, nil
}

func (p *process) await(ctx context.Context, line <-chan []byte, ready any) error {
	select {
	case first := <-line:
		if err := json.Unmarshal(first, ready); err != nil {
			return fmt.Errorf("reading %q: %w", first, err)
		}
		return nil
	case <-p.exited:
		if p.err == nil {
			return fmt.Errorf("it ended: %s", p.stderr.text())
		}
		return fmt.Errorf("it ended: %w: %s", p.err, p.stderr.text())
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(2 * time.Minute):
		return errors.New("not ready after 2 min")
	}
}

// end asks the process to stop and kills it after ten seconds.
func (p *process) end() error {
	p.stdin.Close()
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.exited
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, p.stderr.text())
	}
	return nil
}
