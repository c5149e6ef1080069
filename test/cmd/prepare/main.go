// Command prepare builds the test control plane and the other programs that tests and the demo start. Tests print
// nothing while they run, and the first build takes minutes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/castai/kops-spot/test/testenv"
)

func main() {
	authenticator := flag.Bool("authenticator", false, "also build the authenticator, which the demo does not need")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *authenticator); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, authenticator bool) error {
	if _, err := testenv.BuildBootstrap(ctx); err != nil {
		return err
	}
	if _, err := testenv.BuildControlPlane(ctx, os.Stderr); err != nil {
		return fmt.Errorf("building the control plane: %w", err)
	}
	if authenticator {
		if _, err := testenv.BuildAuthenticator(ctx, os.Stderr); err != nil {
			return fmt.Errorf("building the authenticator: %w", err)
		}
	}
	return nil
}
