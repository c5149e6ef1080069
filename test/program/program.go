// Package program has the start and stop of the test environment's programs.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a program until it returns or is interrupted (SIGTERM or SIGINT). It exits with 1 for an error, 2 for
// -help.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// UntilClosed returns a context that ends at the end of stdin, too. When a parent dies, its end of a pipe is closed. A
// parent-death signal of Linux is not suitable: it is sent when the parent's thread ends, and Go ends threads.
func UntilClosed(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		io.Copy(io.Discard, stdin)
	}()
	return ctx, cancel
}
