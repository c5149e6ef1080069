// Command controlplane runs a Kubernetes control plane on loopback for tests: etcd, kube-apiserver, controllers,
// scheduler and a fake kubelet for every node. When it is ready, it writes DIR/kubeconfig and prints one line of JSON.
// It stops on SIGTERM or SIGINT and keeps its directory.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/castai/kops-spot/test/controlplane"
	"github.com/castai/kops-spot/test/controlplane/protocol"
	"github.com/castai/kops-spot/test/program"
)

func main() {
	program.Main("controlplane", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	})
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg := controlplane.DefaultConfig()
	flags := flag.NewFlagSet("controlplane", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Dir, "dir", "", "directory for its state, logs and kubeconfig")
	flags.IntVar(&cfg.Port, "port", 0, "port of the API server on 127.0.0.1; 0 picks a free one below 32768")
	flags.DurationVar(&cfg.NodeGrace, "node-grace", cfg.NodeGrace, "time without heartbeats until a node is NotReady")
	flags.DurationVar(&cfg.MaxWaitForUnmount, "max-wait-for-unmount", cfg.MaxWaitForUnmount,
		"time until a volume is force-detached")
	flags.Func("apiserver-flag", "a flag for kube-apiserver, like --v=2; may be repeated", func(value string) error {
		cfg.APIServerFlags = append(cfg.APIServerFlags, value)
		return nil
	})
	untilEOF := flags.Bool("until-stdin-closes", false, "also stop when standard input is closed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	if *untilEOF {
		var cancel context.CancelFunc
		ctx, cancel = program.UntilClosed(ctx, stdin)
		defer cancel()
	}
	return controlplane.Run(ctx, cfg, func(ready protocol.Ready) {
		json.NewEncoder(stdout).Encode(ready)
	})
}
