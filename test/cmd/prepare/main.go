// Command prepare builds the test control plane and its authenticator and starts them once, so that what comes next neither waits for it nor
// fails on it: tests show nothing while they run, and the first build takes minutes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/castai/kops-spot/test/testenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log io.Writer) error {
	cp, auth, err := testenv.StartWithAuthenticator(ctx, testenv.Options{Log: log}, testenv.AuthenticatorOptions{ClusterID: "prod.example.com"})
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "the control plane is built and was ready %v after its start\n", cp.ReadyAfter().Round(100*time.Millisecond))
	return errors.Join(cp.Stop(), auth.Stop())
}
