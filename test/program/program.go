// Package program is what the test environment's programs have in common: how they begin, and when they end.
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

// Main runs a program until it ends or is interrupted (SIGTERM or SIGINT), and exits with 1 for an error, 2 for a call
// for help.
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

// UntilClosed is a context that ends at the end of stdin too. A parent's death closes its end of a pipe, however it died.
// Linux could send a signal instead, but does so when the thread that started us ends, and Go ends threads.
func UntilClosed(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		io.Copy(io.Discard, stdin)
	}()
	return ctx, cancel
}
