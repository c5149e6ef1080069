package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

// restoreResult is the output of restore.
type restoreResult struct {
	Cluster       string    `json:"cluster"`
	Node          string    `json:"node"`
	Restored      bool      `json:"restored"` // false if kops-spot had applied nothing
	Event         string    `json:"event,omitempty"`
	Deadline      time.Time `json:"deadline,omitzero"`
	Removed       []string  `json:"removed"`
	Changed       []string  `json:"changed,omitempty"` // by somebody else since, so kept
	Unschedulable bool      `json:"unschedulable"`     // by somebody else
}

func restoreCommand(c *console) *cobra.Command {
	var flags kubeFlags
	cmd := &cobra.Command{
		Use:   "restore NODE",
		Short: "Restore a node cordoned by kops-spot",
		Long: `Remove the cordon, taints and labels that the function applied to a node whose instance was not
terminated. The node's annotations list what was applied. Anything that existed before or was changed since is
kept.

NODE is the name of a node or the ID of its instance.`,
		Example: "  kops-spot restore i-0a1b2c3d4e5f60718",
		Args:    oneArg,
		RunE:    func(cmd *cobra.Command, args []string) error { return c.restore(cmd.Context(), flags, args[0]) },
	}
	flags.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

func (c *console) restore(ctx context.Context, flags kubeFlags, name string) error {
	k, err := c.connect(ctx, flags)
	if err != nil {
		return err
	}
	n, err := findNode(ctx, k, name, "")
	if err != nil {
		return err
	}
	shown := spot.WhatRestoreRemoves(n)
	result := restoreResult{Cluster: k.ref.Cluster, Node: n.Name, Restored: shown.Any(), Event: shown.Event,
		Deadline: shown.Deadline, Removed: append([]string{}, shown.Removed...), Changed: shown.Changed,
		Unschedulable: n.Unschedulable}
	node := "node " + n.Name + " of " + k.ref.Cluster
	if !shown.Any() {
		return c.conclude(result, nil, node+" has nothing applied by kops-spot: nothing to restore"+otherCordon(n), nil)
	}
	if err := term.Restoring(c.stderr, node, shown, time.Now(), c.options(c.stderr)); err != nil {
		return err
	}
	if err := c.ask(ctx, "Restore the node?"); err != nil {
		return err
	}
	other := false
	n, err = k.ChangeNode(ctx, n, func(n spot.Node) spot.Node {
		// The node may have been changed since: what another event applied was not shown.
		if now := spot.WhatRestoreRemoves(n); now.Any() && now.Event != shown.Event {
			other = true
			return n
		}
		return spot.Restore(n)
	})
	switch {
	case err != nil:
		return err
	case other:
		return fmt.Errorf("nothing was changed: node %s was cordoned for another event in the meantime: run this again",
			n.Name)
	}
	result.Unschedulable = n.Unschedulable
	err = c.conclude(result, nil, node+" restored"+otherCordon(n), nil)
	if i, unknown := instanceOf(n); unknown == nil && c.output == asText {
		region := ""
		if i.region != "" {
			region = " --region " + i.region
		}
		c.say(term.Mind, "AWS is unchanged: if the instance has these tags, it was detached from its Auto Scaling group, "+
			"which launched a replacement:\naws ec2 describe-tags%s --filters Name=resource-id,Values=%s Name=key,Values=%s,%s",
			region, i.id, spot.TagDetached, spot.TagInterruptedAt)
	}
	return err
}

// otherCordon describes a cordon that is not ours.
func otherCordon(n spot.Node) string {
	if !n.Unschedulable {
		return ""
	}
	return fmt.Sprintf("; it is still cordoned by %s: kubectl uncordon %s removes the cordon",
		cmp.Or(n.CordonedBy, "somebody else"), n.Name)
}
