// Command authenticator runs the server of aws-iam-authenticator on loopback, for tests. When it takes tokens it prints
// one line of JSON. It stops on SIGTERM or SIGINT, and leaves its directory behind: started again in it, it has the same
// keys.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/castai/kops-spot/test/authenticator"
	"github.com/castai/kops-spot/test/authenticator/protocol"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "authenticator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("authenticator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "JSON file that says how to run it")
	untilEOF := flags.Bool("until-stdin-closes", false, "stop at the end of standard input too: when whoever started it is gone")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var cfg protocol.Config
	if err := json.Unmarshal(text, &cfg); err != nil {
		return fmt.Errorf("reading %s: %w", *file, err)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *untilEOF {
		// A parent's death closes its end of a pipe, however it died.
		go func() {
			defer cancel()
			io.Copy(io.Discard, stdin)
		}()
	}
	return authenticator.Run(ctx, cfg, func(ready protocol.Ready) {
		json.NewEncoder(stdout).Encode(ready)
	})
}
