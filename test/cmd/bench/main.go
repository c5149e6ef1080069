// Command bench compares kops-spot with kubectl's drain library and prints tables; docs/benchmarks.md is what it wrote
// last. See package bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/castai/kops-spot/test/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := bench.Options{Log: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.Quick, "quick", false, "small sizes, one round: does it still work?")
	file := flags.String("write", "", "`file` to write as Markdown, such as ../docs/benchmarks.md")
	flags.Func("only", "`cases` to run, separated by commas: "+strings.Join(bench.CaseNames(), ", "), func(value string) error {
		for name := range strings.SplitSeq(value, ",") {
			if !slices.Contains(bench.CaseNames(), name) {
				return fmt.Errorf("there is no case %q", name)
			}
			o.Only = append(o.Only, name)
		}
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *file != "" && (o.Quick || len(o.Only) > 0):
		return errors.New("-write goes with neither -quick nor -only: what stands in the document is one whole run")
	}
	// client-go tells of every wait for its own limit; the tables tell what they come to.
	klog.SetLogger(klog.Logger{})
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := r.Text(stdout); err != nil {
		return err
	}
	if *file == "" {
		return nil
	}
	page, err := r.Markdown()
	if err != nil {
		return err
	}
	if err := os.WriteFile(*file, page, 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}
