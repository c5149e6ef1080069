package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/castai/kops-spot/internal/spot"
)

// kubeFlags select the cluster. Every command that uses one has them.
type kubeFlags struct{ kubeconfig, context, cluster, store string }

func (k *kubeFlags) register(f *pflag.FlagSet) {
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "Path to the kubeconfig `file` (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&k.context, "context", "", "The kubeconfig `context` to use (default: the current one)")
	f.StringVar(&k.cluster, "cluster", "",
		"The `name` of the kOps cluster (default: KOPS_SPOT_CLUSTER, or the name found in the cluster)")
}

// registerState registers the flag of commands that use the kOps state store.
func (k *kubeFlags) registerState(f *pflag.FlagSet) {
	f.StringVar(&k.store, "state", "",
		"The kOps state `store`, s3://BUCKET[/FOLDER] (default: the one found in the cluster, or KOPS_STATE_STORE)")
}

// awsFlags select the cluster and its AWS region. Every command that uses the AWS account has them.
type awsFlags struct {
	kubeFlags
	region string
}

func (a *awsFlags) register(f *pflag.FlagSet) {
	a.kubeFlags.register(f)
	f.StringVar(&a.region, "region", "", "The AWS `region` of the cluster (default: the region of its nodes)")
}

// applyFlags are the flags of commands that ask for confirmation.
func (c *console) applyFlags(f *pflag.FlagSet) {
	f.BoolVarP(&c.yes, "yes", "y", false, "Do not ask for confirmation")
}

// requires says in the usage of flags that they need another flag, and returns a function that checks it.
func requires(f *pflag.FlagSet, other string, names ...string) (check func() error) {
	for _, name := range names {
		f.Lookup(name).Usage += "; requires --" + other
	}
	return func() error {
		for _, name := range names {
			if f.Changed(name) && f.Lookup(other).Value.String() != "true" {
				return fmt.Errorf("--%s requires --%s", name, other)
			}
		}
		return nil
	}
}

func exportFlag(f *pflag.FlagSet, dir *string) {
	f.StringVar(dir, "export", "",
		"Write the documents and manifests to this `directory`, overwriting files of the same names, and exit")
}

func kindFlag(cmd *cobra.Command, kind *string, kinds []spot.Kind) {
	cmd.Flags().StringVar(kind, "event", string(spot.SpotTerminate), "The event `kind`: "+join(kinds))
	_ = cmd.RegisterFlagCompletionFunc("event", fixed(kinds...))
}

func parseKind(kind string, kinds []spot.Kind) (spot.Kind, error) {
	if !slices.Contains(kinds, spot.Kind(kind)) {
		return "", fmt.Errorf("invalid --event %q: use one of %s", kind, join(kinds))
	}
	return spot.Kind(kind), nil
}

// lookback is a duration that may be given in days.
type lookback time.Duration

func (l *lookback) Set(text string) error {
	if days, is := strings.CutSuffix(text, "d"); is {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*l = lookback(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	} else if d, err := time.ParseDuration(text); err == nil {
		*l = lookback(d)
		return nil
	}
	return errors.New("use a duration such as 12h or 30d")
}

func (l *lookback) String() string {
	if d := time.Duration(*l); d > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return time.Duration(*l).String()
}

func (l *lookback) Type() string { return "duration" }

// register registers --since.
func (l *lookback) register(f *pflag.FlagSet, byDefault time.Duration) {
	*l = lookback(byDefault)
	f.Var(l, "since", "Look back this `duration`, such as 12h or 30d")
}

// start returns the beginning of the period.
func (l *lookback) start(now time.Time) (time.Time, error) {
	if *l <= 0 {
		return now, fmt.Errorf("invalid --since %s: use a positive duration such as 12h or 30d", l)
	}
	return now.Add(-time.Duration(*l)), nil
}

func join(kinds []spot.Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// withUsage appends how to see the usage to an error about arguments.
func withUsage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error { return seeHelp(cmd, args(cmd, given)) }
}

func seeHelp(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\nSee '%s --help' for usage", err, cmd.CommandPath())
}

var (
	noArgs = withUsage(cobra.NoArgs)
	oneArg = withUsage(cobra.ExactArgs(1))
)
