package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
)

// completionLimit limits how long the shell waits for the cluster.
const completionLimit = 2 * time.Second

// addCompletions adds the completions of arguments and flags to a command and its subcommands. A flag without one, such
// as --region, completes to nothing.
func (c *console) addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		c.addCompletions(sub)
	}
	if strings.Contains(cmd.Use, "NODE") {
		cmd.ValidArgsFunction = c.completeNode
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		complete := map[string]cobra.CompletionFunc{
			"context": func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
				return c.kubeconfig(selected(cmd)).Contexts(), cobra.ShellCompDirectiveNoFileComp
			},
			"output":      completeOutput,
			"permissions": fixed(onboard.Least, onboard.Guide),
			"set":         completeSet,
		}[f.Name]
		switch value, _ := pflag.UnquoteUsage(f); {
		case complete != nil:
		case value == "file":
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
		case value == "directory":
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		default:
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
	})
}

func fixed[T ~string](values ...T) cobra.CompletionFunc {
	var all []cobra.Completion
	for _, v := range values {
		all = append(all, string(v))
	}
	return cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)
}

// selected returns the flags that select the command's cluster.
func selected(cmd *cobra.Command) kubeFlags {
	value := func(flag string) string {
		v, _ := cmd.Flags().GetString(flag)
		return v
	}
	return kubeFlags{kubeconfig: value("kubeconfig"), context: value("context"), cluster: value("cluster")}
}

// completeNode completes the name of a node, or the ID of its instance. An argument with --namespace names a pod.
func (c *console) completeNode(cmd *cobra.Command, args []string, typed string) (
	[]cobra.Completion, cobra.ShellCompDirective) {
	if namespace := cmd.Flags().Lookup("namespace"); len(args) > 0 || namespace != nil && namespace.Changed {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
	defer cancel()
	found, _ := interruptible(ctx, func() (all []cobra.Completion) { // a credential plugin may wait
		k, err := c.connect(ctx, selected(cmd))
		if err != nil {
			return nil
		}
		nodes, _ := onboard.NodeInstances(ctx, k.objects)
		for _, n := range nodes {
			if strings.HasPrefix(typed, "i-") {
				n.Node = n.ID
			}
			all = append(all, n.Node)
		}
		return all
	})
	return found, cobra.ShellCompDirectiveNoFileComp
}

func completeOutput(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	formats := []cobra.Completion{asText, asJSON}
	if cmd.Name() == "grant" {
		formats = append(formats, asSAM)
	}
	return formats, cobra.ShellCompDirectiveNoFileComp
}

// completeSet completes the name of a stack parameter, then its value if only some are allowed.
func completeSet(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var all []cobra.Completion
	if name, _, given := strings.Cut(typed, "="); given {
		for _, value := range template.Allowed[name] {
			all = append(all, name+"="+value)
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.Sorted(maps.Keys(template.Defaults))
	if cmd.Name() == "onboard" {
		names = onboard.Settings
	}
	for _, name := range names {
		if _, err := install.ParseSet(template, []string{name + "="}); err == nil {
			all = append(all, name+"=")
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
