// Command bench compares kops-spot with kubectl's drain library on one control plane, and its cold start with that of
// an empty function. With -only slots it measures kops-spot where Lambda allows few executions at once. It prints tables
// and has no thresholds. docs/benchmarks.md is the output of the last complete run.
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var only []string
	names := caseNames()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	small := flags.Bool("quick", false, "run each case once with small sizes, as a smoke test")
	file := flags.String("write", "", "write the results to a Markdown `file`: ../docs/benchmarks.md, or with -only "+
		slotsCase+" ../docs/operations.md")
	flags.Func("only", "run only these `cases`, separated by commas: "+strings.Join(names, ", "),
		func(value string) error {
			for name := range strings.SplitSeq(value, ",") {
				if !slices.Contains(names, name) {
					return fmt.Errorf("unknown case %q", name)
				}
				only = append(only, name)
			}
			return nil
		})
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *file != "" && (*small || len(only) > 0 && !slices.Equal(only, []string{slotsCase})):
		return errors.New("-write cannot be combined with -quick, or with -only except for " + slotsCase +
			": the document describes one complete run")
	}
	klog.SetLogger(klog.Logger{}) // client-go logs every client-side throttling delay
	s := full()
	if *small {
		s = quick()
	}
	r, err := runCases(ctx, s, only, stderr)
	if err != nil {
		return err
	}
	r.text(stdout)
	if *file == "" {
		return nil
	}
	render := r.markdown
	if len(only) > 0 {
		render = func() ([]byte, error) { return r.insert(*file) }
	}
	page, err := render()
	if err != nil {
		return err
	}
	if err := os.WriteFile(*file, page, 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}
