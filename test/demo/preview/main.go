// Command preview runs the command given by its arguments. If that takes long, it meanwhile plays the demo in memory
// and then prints how long the command has been running. It imports only the standard library, packages spot and
// handler, and the in-memory cluster, so it builds within seconds from an empty cache.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/castai/kops-spot/test/demo/story"
)

const (
	patience = 5 * time.Second  // no preview for a command that finishes sooner
	progress = 30 * time.Second // between two progress lines
)

const label = `PREVIEW: the demo, simulated in memory while the real one compiles. Compiling Kubernetes takes %s
the first time on two cores. The result is cached.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: preview COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "preview:", err)
		os.Exit(1)
	}
}

// run returns when the command and the preview have finished. Canceling ctx stops both.
func run(ctx context.Context, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	output := &bufferedWriter{w: os.Stderr}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to stop the compilers too
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return failure(ctx, command, err)
	case <-time.After(patience):
	}
	output.hold()
	out := story.NewScreen(os.Stdout)
	out.Text(fmt.Sprintf(label, story.FirstBuild))
	if err := show(ctx, out); err != nil && ctx.Err() == nil {
		out.Line("the preview failed: %v", err)
	}
	output.release()
	for {
		select {
		case err := <-ended:
			return failure(ctx, command, err)
		case <-time.After(progress):
			out.Line("compiling: %v of %s", time.Since(began).Round(time.Second), story.FirstBuild)
		}
	}
}

func failure(ctx context.Context, command []string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: run the same command again; compiled packages are cached")
	case err != nil:
		return fmt.Errorf("running %q: %w", command, err)
	}
	return nil
}

// bufferedWriter holds back the output of the command during the preview.
type bufferedWriter struct {
	mu      sync.Mutex
	w       io.Writer
	holding bool
	kept    bytes.Buffer
}

func (h *bufferedWriter) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holding {
		return h.kept.Write(p)
	}
	return h.w.Write(p)
}

func (h *bufferedWriter) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holding = true
}

func (h *bufferedWriter) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holding = false
	_, _ = h.kept.WriteTo(h.w)
}
