package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
	"github.com/castai/kops-spot/test/demo/story"
	"github.com/castai/kops-spot/test/testenv"
)

// kinds maps the values of -kind to EC2's interruption warnings.
var kinds = map[string]spot.Kind{"terminate": spot.SpotTerminate, "stop": spot.SpotStop, "hibernate": spot.SpotHibernate}

type settings struct {
	kind spot.Kind
	node string // empty for the busiest
}

func parse(args []string, stderr io.Writer) (settings, error) {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	kind := fs.String("kind", "terminate", "what EC2 does to the instance: terminate, stop or hibernate")
	node := fs.String("node", "", "the `name` of the node to interrupt (default: the busiest)")
	if err := fs.Parse(args); err != nil {
		return settings{}, err
	}
	set := settings{kind: kinds[*kind], node: *node}
	names := nodeNames()
	switch {
	case fs.NArg() > 0:
		return settings{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case set.kind == "":
		return settings{}, fmt.Errorf("-kind %s: must be terminate, stop or hibernate", *kind)
	case set.node != "" && !slices.Contains(names, set.node):
		return settings{}, fmt.Errorf("-node %s: no such node; use one of %q", set.node, names)
	}
	return set, nil
}

// run runs the demo and cleans up everything it started. It returns an error if a check fails.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	set, err := parse(args, stderr)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil { // every other error follows from this one
			err = fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
	}()
	out := story.NewScreen(stdout)
	out.Text(story.Intro)

	bootstrap, err := testenv.BuildBootstrap(ctx)
	if err != nil {
		return err
	}
	out.Line("function        bin/bootstrap, as Lambda runs it")
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{Log: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	out.Line("control plane   Kubernetes %s, ready in %.1f s", testenv.KubernetesVersion, cp.ReadyAfter().Seconds())

	if err := cp.Apply(ctx, deploy.RBAC); err != nil {
		return err
	}
	w, err := newWorld(ctx, cp, out)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.fill(ctx, set.kind); err != nil {
		return err
	}
	out.Line("workloads       %s: all Ready", w.shop.summary())
	victim := w.machines[set.node]
	if set.node == "" {
		victim = w.busiest()
	}
	w.show(set.kind, victim)
	return w.interrupt(ctx, set.kind, victim, bootstrap)
}

// report prints the function's outcome and checks it against the cluster.
func (w *world) report(ctx context.Context, outcome spot.Outcome, victim *machine) error {
	w.out.Line("\noutcome reported by the function\n")
	if err := term.Timeline(w.out, outcome, term.Options{Color: w.out.Color}); err != nil {
		return err
	}
	w.out.Line("\nchecks of the cluster\n")
	err := w.check(ctx, outcome, victim)
	if err != nil && outcome.Event.Kind == spot.SpotHibernate {
		w.out.Text(story.Hibernated)
	}
	w.out.Text(story.Next)
	return err
}
