// Command demo shows one interrupted node on a real control plane, live: from EC2's warning to the last pod that is
// Ready elsewhere. It needs Go and nothing else, and leaves nothing behind.
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
	// A pipe that nobody reads any more is an end as any other: there is to be tidied up after it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := inTempDir(func() error { return run(endsWithParent(ctx), os.Args[1:], os.Stdout, os.Stderr) })
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// inTempDir has all temporary files, also those of the compilers and of the control plane, in one directory that goes
// at the end: what is killed while it works cannot tidy up after itself.
func inTempDir(do func() error) error {
	dir, err := os.MkdirTemp("", "kops-spot-demo-")
	if err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	err = do()
	for range 10 { // a compiler that has just been killed may still be adding to it
		if os.RemoveAll(dir) == nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// endsWithParent is a context that ends when the process that started this one does: go run hands no SIGTERM on, but
// dies of it alone.
func endsWithParent(ctx context.Context) context.Context {
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
		cancel(errors.New("whoever started it is gone"))
	}()
	return ctx
}
