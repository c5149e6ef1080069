package main

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/agent"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/term"
)

func fixCommand(c *console) *cobra.Command {
	var o kubeFlags
	cmd := &cobra.Command{
		Use:   "fix kube-router",
		Short: "Fix a known issue of the cluster",
		Long: `Add the tolerations that the DaemonSet kube-router lacks, for example with kOps 1.17. Without them, nodes with
custom taints cannot join the cluster. Everything else in the DaemonSet stays.

The plan is shown before you confirm it. Then wait until the pods have restarted, or say why they have not. You can
interrupt the command at any time and run it again. No AWS credentials are needed.`,
		Example:   "  kops-spot fix kube-router",
		Args:      withUsage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{"kube-router"},
		RunE:      func(cmd *cobra.Command, _ []string) error { return c.fixRouter(cmd.Context(), o) },
	}
	o.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

func (c *console) fixRouter(ctx context.Context, o kubeFlags) error {
	k, err := c.connect(ctx, o)
	if err != nil {
		return err
	}
	p, err := agent.PlanRouter(ctx, k.objects)
	if err != nil {
		return err
	}
	c.say(term.Mind, "cluster %s, kubeconfig context %s", k.ref.Cluster, k.ref.Context)
	return c.applyAgent(ctx, k.objects, agent.Agent{Cluster: k.ref.Cluster}, p, "Change the DaemonSet?", "nothing is left to fix",
		func(ctx context.Context) (change.Findings, error) { return agent.WaitRouter(ctx, k.objects) })
}

// routerFinding reports whether nodes with custom taints can join; nothing without kube-router.
func routerFinding(ctx context.Context, client dynamic.Interface) change.Findings {
	return finding(ctx, client, agent.CheckRouter, "kube-router", "whether kube-router tolerates custom taints")
}
