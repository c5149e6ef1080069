package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type explainOptions struct {
	place
	namespace, event string
}

func explainCommand(c *console) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain NODE|POD",
		Short: "says what the function would do if EC2's warning came now, and why",
		Long: "explain decides as the function would if EC2 warned of the node's instance now, and changes nothing.\n" +
			"It shows until when there is time, whether a replacement is asked for, and what becomes of every pod.\n" +
			"Where the function's settings are not the defaults, set them here too: KOPS_SPOT_FORCE and the like.\n\n" +
			"NODE is a node's name or its instance's id; POD is a pod on a node, as NAMESPACE/NAME or with -n",
		Example: "  kops-spot explain i-0a1b2c3d4e5f60718\n" +
			"  kops-spot explain shop/payments-0\n" +
			"  kops-spot explain i-0a1b2c3d4e5f60718 --event " + string(spot.Rebalance) + " --output json",
		Args: one("which node or pod"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.explain(cmd.Context(), o, args[0]) },
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "the `namespace` of the pod: what is explained is a pod then")
	cmd.Flags().StringVar(&o.event, "event", string(spot.SpotTerminate), "the `kind` of warning: "+listed(spot.WarningKinds()))
	return cmd
}

func listed(kinds []spot.Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func (c *console) explain(ctx context.Context, o explainOptions, arg string) error {
	kind := spot.Kind(o.event)
	if !slices.Contains(spot.WarningKinds(), kind) {
		return fmt.Errorf("--event %s: there is no such warning; there are %s", o.event, listed(spot.WarningKinds()))
	}
	k, err := c.connect(ctx, o.place)
	if err != nil {
		return err
	}
	e := term.Explanation{}
	if e.Policy, e.From, err = c.policy(k.name); err != nil {
		return err
	}
	n, pod, err := findSubject(ctx, k, arg, o.namespace)
	if err != nil {
		return err
	}
	m, err := machineOf(n)
	if err != nil {
		return err
	}
	cloud, unasked := c.cloud(ctx, m.region)
	e.Region, e.Pod, e.Marks, e.Unasked = m.region, pod, spot.WhatRestoreRemoves(n), unasked
	h := spot.Handler{Cluster: found{k.Cluster, n}, Cloud: cloud, Policy: e.Policy}
	e.Outcome, err = h.Preview(ctx, e.Policy.ExampleEvent(kind, m.id, m.region, time.Now()))
	if err != nil {
		return fmt.Errorf("explaining node %s: %w", n.Name, err)
	}
	if plan := e.Outcome.Plan; c.output == asJSON && plan != nil && pod != "" {
		plan.Pods = slices.DeleteFunc(plan.Pods, func(p spot.PlannedPod) bool { return p.Namespace+"/"+p.Name != pod })
	}
	return c.tell(e.Outcome, func(w io.Writer, o term.Options) error { return term.Explain(w, e, o) })
}

// findSubject finds the node that is ref and, if it is a pod that is ref, which: as namespace/name.
func findSubject(ctx context.Context, k cluster, arg, namespace string) (n spot.Node, pod string, err error) {
	switch inNamespace := strings.Count(arg, "/"); {
	case namespace != "" && inNamespace == 0:
		pod = namespace + "/" + arg
	case inNamespace == 1 && (namespace == "" || strings.HasPrefix(arg, namespace+"/")):
		pod = arg
	case inNamespace > 0:
		return n, "", fmt.Errorf("%s: a pod is said as NAMESPACE/NAME, or as its name with -n NAMESPACE", arg)
	default:
		n, err = findNode(ctx, k, arg, "; a pod is said as NAMESPACE/"+arg)
		return n, "", err
	}
	namespace, name, _ := strings.Cut(pod, "/")
	on, err := k.NodeOfPod(ctx, namespace, name)
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return n, "", fmt.Errorf("%s has no pod %s: kubectl get pods -n %s lists them", k.name, pod, namespace)
	case err != nil:
		return n, "", err
	case on == "":
		return n, "", fmt.Errorf("pod %s is on no node yet: no warning can be about it", pod)
	}
	n, err = k.NodeNamed(ctx, on)
	return n, pod, err
}

// found is a cluster in which the node has been found already, whatever EC2 says of its instance.
type found struct {
	*kube.Cluster
	node spot.Node
}

func (f found) NodeNamed(context.Context, string) (spot.Node, error) { return f.node, nil }
