package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// kubeFlags select the cluster. Every command that uses one has them.
type kubeFlags struct{ kubeconfig, context, cluster string }

func (k *kubeFlags) register(f *pflag.FlagSet) {
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "Path to the kubeconfig `file` (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&k.context, "context", "", "The kubeconfig `context` to use (default: the current one)")
	f.StringVar(&k.cluster, "cluster", "", "The `name` of the kOps cluster (default: KOPS_SPOT_CLUSTER, or the name found in the cluster)")
}

// awsFlags select the cluster and its AWS region. Every command that changes something in AWS has them.
type awsFlags struct {
	kubeFlags
	region string
}

func (a *awsFlags) register(f *pflag.FlagSet) {
	a.kubeFlags.register(f)
	f.StringVar(&a.region, "region", "", "The AWS `region` of the cluster (default: the region of its nodes)")
}

// applyFlags are those of the commands that ask before they change something.
func (c *console) applyFlags(f *pflag.FlagSet) {
	f.BoolVarP(&c.yes, "yes", "y", false, "Do not ask for confirmation")
}

func exportFlag(f *pflag.FlagSet, dir *string) {
	f.StringVar(dir, "export", "", "Write the documents and manifests to this `directory`, overwriting files of the same names, and exit")
}

// outputFlag is the form of a result, for every command.
func (c *console) outputFlag(f *pflag.FlagSet) {
	f.StringVarP(&c.output, "output", "o", asText, "Output `format`: "+asText+" or "+asJSON)
}

// withUsage appends where to find the usage to an error about arguments.
func withUsage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error { return seeHelp(cmd, args(cmd, given)) }
}

func seeHelp(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\nSee '%s --help' for usage", err, cmd.CommandPath())
}

// The arguments of commands.
var (
	noArgs = withUsage(cobra.NoArgs)
	oneArg = withUsage(cobra.ExactArgs(1))
)
