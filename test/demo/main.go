// Command demo interrupts a node on a real control plane and prints what happens, from EC2's warning until the last pod
// is Ready elsewhere. It requires only Go and cleans up after itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// SIGPIPE: clean up when the reader of the output exits, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := inTempDir(func() error { return run(cancelWithParent(ctx), os.Args[1:], os.Stdout, os.Stderr) })
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// inTempDir runs do with a new TMPDIR and then removes it: compilers and control planes that are killed leave temporary
// files behind.
func inTempDir(do func() error) error {
	dir, err := os.MkdirTemp("", "kops-spot-demo-")
	if err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	err = do()
	for range 10 { // a compiler that was just killed may still be writing to it
		if os.RemoveAll(dir) == nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// cancelWithParent returns a context that is canceled when the parent process exits: go run does not forward SIGTERM.
func cancelWithParent(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
		cancel(errors.New("the parent process exited"))
	}()
	return ctx
}
