// Command kops-spot installs and operates the function: it deploys and checks it, explains what it would do with a node,
// and restores nodes that it cordoned. The function does not need it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/castai/kops-spot/internal/term"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Environ(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		(&console{environ: os.Environ(), stderr: os.Stderr}).say(term.Bad, "%v", err)
		os.Exit(1)
	}
}
