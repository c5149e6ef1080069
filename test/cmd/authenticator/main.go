// Command authenticator runs the server of aws-iam-authenticator on loopback for tests. It prints one line of JSON when
// it accepts tokens, and stops on SIGTERM or SIGINT. Restarted in the same directory, it has the same keys.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/castai/kops-spot/test/authenticator"
	"github.com/castai/kops-spot/test/authenticator/protocol"
	"github.com/castai/kops-spot/test/program"
)

func main() {
	program.Main("authenticator", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	})
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("authenticator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "JSON file that says how to run it")
	untilEOF := flags.Bool("until-stdin-closes", false, "also stop when standard input is closed")
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

	if *untilEOF {
		var cancel context.CancelFunc
		ctx, cancel = program.UntilClosed(ctx, stdin)
		defer cancel()
	}
	return authenticator.Run(ctx, cfg, func(ready protocol.Ready) {
		json.NewEncoder(stdout).Encode(ready)
	})
}
