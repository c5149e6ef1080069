// Command kops-spot is the operator's tool: it deploys the function, checks it, explains what it would do with a node, and
// restores nodes that it has cordoned. The function does not need it.
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
		term.Say(os.Stderr, term.Bad, err.Error(), options(os.Environ(), os.Stderr))
		os.Exit(1)
	}
}
