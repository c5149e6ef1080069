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

// restored is what restore tells, for a program to read.
type restored struct {
	Cluster       string    `json:"cluster"`
	Node          string    `json:"node"`
	Restored      bool      `json:"restored"` // false: it carried no marks
	Event         string    `json:"event,omitempty"`
	Deadline      time.Time `json:"deadline,omitzero"`
	Removed       []string  `json:"removed"`
	Changed       []string  `json:"changed,omitempty"` // by somebody since, and so left
	Unschedulable bool      `json:"unschedulable"`     // by somebody else
}

func restoreCommand(c *console) *cobra.Command {
	var where place
	cmd := &cobra.Command{
		Use:   "restore NODE",
		Short: "takes the function's marks off a node, and only those",
		Long: "restore opens a node again that the function has cordoned and that lives on: an instance that was stopped\n" +
			"and has come back, a warning that came to nothing. It takes away what the function has added to the node,\n" +
			"which the node's annotations name, and leaves what was there before or has been changed since.\n\n" +
			"NODE is a node's name or its instance's id",
		Example: "  kops-spot restore i-0a1b2c3d4e5f60718",
		Args:    one("which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := c.connect(cmd.Context(), where)
			if err != nil {
				return err
			}
			return c.restore(cmd.Context(), k, args[0])
		},
	}
	where.flags(cmd.Flags())
	c.yesFlag(cmd.Flags())
	return cmd
}

func (c *console) restore(ctx context.Context, k cluster, name string) error {
	n, err := findNode(ctx, k, name, "")
	if err != nil {
		return err
	}
	shown := spot.WhatRestoreRemoves(n)
	told := restored{Cluster: k.name, Node: n.Name, Removed: []string{}, Unschedulable: n.Unschedulable}
	if !shown.Any() {
		return c.conclude(told, nil, fmt.Sprintf("node %s of %s carries no marks of kops-spot: there is nothing to restore%s",
			n.Name, k.name, cordonedBySomebody(n)), nil)
	}
	if err := term.Restoring(c.stderr, n.Name+" of "+k.name, shown, time.Now(), options(c.environ, c.stderr)); err != nil {
		return err
	}
	if err := c.ask(ctx, "take this off the node?"); err != nil {
		return err
	}
	other := false
	n, err = k.ChangeNode(ctx, n, func(n spot.Node) spot.Node {
		// Somebody else may have written meanwhile. Marks of another event are not those that were shown.
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
		return fmt.Errorf("nothing was changed: node %s has been marked for another event meanwhile: run this again to see", n.Name)
	}
	told.Restored, told.Event, told.Deadline = true, shown.Event, shown.Deadline
	told.Removed, told.Changed, told.Unschedulable = shown.Removed, shown.Changed, n.Unschedulable
	err = c.conclude(told, nil, fmt.Sprintf("node %s of %s is restored%s", n.Name, k.name, cordonedBySomebody(n)), nil)
	if c.output == asText {
		c.sayWhereAWSIs(n)
	}
	return err
}

// cordonedBySomebody says what is to be known of a node that takes no pods though it has no marks of ours.
func cordonedBySomebody(n spot.Node) string {
	if !n.Unschedulable {
		return ""
	}
	return fmt.Sprintf("; it is cordoned, by %s: kubectl uncordon %s opens it", cmp.Or(n.CordonedBy, "somebody else"), n.Name)
}

// sayWhereAWSIs tells where to look for the other half of the function's work, which restore does not touch.
func (c *console) sayWhereAWSIs(n spot.Node) {
	m, err := machineOf(n)
	if err != nil {
		return
	}
	region := ""
	if m.region != "" {
		region = " --region " + m.region
	}
	c.say(term.Mind, "nothing is changed in AWS: if its instance carries these tags, it was detached from its Auto Scaling group, which launched another:\n"+
		"aws ec2 describe-tags%s --filters Name=resource-id,Values=%s Name=key,Values=%s,%s", region, m.id, spot.TagDetached, spot.TagInterruptedAt)
}
