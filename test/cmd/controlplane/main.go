// Command controlplane runs a Kubernetes control plane for tests on loopback: etcd, kube-apiserver, controllers,
// scheduler, and a fake kubelet for every node. When everything works it writes DIR/kubeconfig and prints one line of
// JSON. It stops on SIGTERM or SIGINT, and leaves its directory behind.
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

	"github.com/castai/kops-spot/test/controlplane"
	"github.com/castai/kops-spot/test/controlplane/protocol"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg := controlplane.DefaultConfig()
	flags := flag.NewFlagSet("controlplane", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Dir, "dir", "", "directory for its state, logs and kubeconfig")
	flags.IntVar(&cfg.Port, "port", 0, "port of the API server on 127.0.0.1; 0 picks a free one below 32768")
	flags.DurationVar(&cfg.NodeGrace, "node-grace", cfg.NodeGrace, "time without heartbeats until a node is NotReady")
	flags.DurationVar(&cfg.PodGCPeriod, "podgc-period", cfg.PodGCPeriod, "time between two looks for pods of nodes that are gone")
	flags.DurationVar(&cfg.PodGCQuarantine, "podgc-quarantine", cfg.PodGCQuarantine, "time from a node's deletion until its pods are deleted")
	flags.DurationVar(&cfg.MaxWaitForUnmount, "max-wait-for-unmount", cfg.MaxWaitForUnmount,
		"time until a volume is detached from a node that does not let go of it")
	flags.Func("apiserver-flag", "a flag for kube-apiserver, like --v=2; may be repeated", func(value string) error {
		cfg.APIServerFlags = append(cfg.APIServerFlags, value)
		return nil
	})
	untilEOF := flags.Bool("until-stdin-closes", false, "stop at the end of standard input too: when whoever started it is gone")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *untilEOF {
		// A parent's death closes its end of a pipe, however it died. Linux could send a signal instead, but does so
		// when the thread that started us ends, and Go ends threads.
		go func() {
			defer cancel()
			io.Copy(io.Discard, stdin)
		}()
	}
	return controlplane.Run(ctx, cfg, func(ready protocol.Ready) {
		json.NewEncoder(stdout).Encode(ready)
	})
}
