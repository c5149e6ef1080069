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

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type explainOptions struct {
	kubeFlags
	namespace, event string
}

func explainCommand(c *console) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain NODE|POD",
		Short: "Explain what the function would do if an interruption notice came now",
		Long: "Decide as the function would if EC2 interrupted the node's instance now, without changing anything.\n" +
			"The output shows the deadline, the replacement and the plan for each pod.\n" +
			"If the function's settings differ from the defaults, set them here too (KOPS_SPOT_FORCE and so on).\n\n" +
			"NODE is the name of a node or the ID of its instance. POD is a pod on a node: NAMESPACE/NAME, or NAME with -n.",
		Example: "  kops-spot explain i-0a1b2c3d4e5f60718\n" +
			"  kops-spot explain shop/payments-0\n" +
			"  kops-spot explain i-0a1b2c3d4e5f60718 --event " + string(spot.Rebalance) + " --output json",
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error { return c.explain(cmd.Context(), o, args[0]) },
	}
	o.register(cmd.Flags())
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "The `namespace` of the pod; the argument is then the name of a pod")
	cmd.Flags().StringVar(&o.event, "event", string(spot.SpotTerminate), "The event `kind`: "+listed(spot.WarningKinds()))
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
		return fmt.Errorf("invalid --event %q: use one of %s", o.event, listed(spot.WarningKinds()))
	}
	k, err := c.connect(ctx, o.kubeFlags)
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
	h := handler.Handler{Cluster: found{k.Cluster, n}, Cloud: cloud, Policy: e.Policy}
	e.Outcome, err = h.Preview(ctx, e.Policy.ExampleEvent(kind, m.id, m.region, time.Now()))
	if err != nil {
		return fmt.Errorf("explaining node %s: %w", n.Name, err)
	}
	if plan := e.Outcome.Plan; c.output == asJSON && plan != nil && pod != "" {
		plan.Pods = slices.DeleteFunc(plan.Pods, func(p spot.PlannedPod) bool { return p.Namespace+"/"+p.Name != pod })
	}
	return c.printResult(e.Outcome, func(w io.Writer, o term.Options) error { return term.Explain(w, e, o) })
}

// findSubject finds the node that is ref and, if it is a pod that is ref, which: as namespace/name.
func findSubject(ctx context.Context, k cluster, arg, namespace string) (n spot.Node, pod string, err error) {
	switch inNamespace := strings.Count(arg, "/"); {
	case namespace != "" && inNamespace == 0:
		pod = namespace + "/" + arg
	case inNamespace == 1 && (namespace == "" || strings.HasPrefix(arg, namespace+"/")):
		pod = arg
	case inNamespace > 0:
		return n, "", fmt.Errorf("%s: name a pod as NAMESPACE/NAME, or as NAME with -n NAMESPACE", arg)
	default:
		n, err = findNode(ctx, k, arg, "; to name a pod, use NAMESPACE/"+arg)
		return n, "", err
	}
	namespace, name, _ := strings.Cut(pod, "/")
	on, err := k.NodeOfPod(ctx, namespace, name)
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return n, "", fmt.Errorf("pod %[2]s not found in %[1]s: kubectl get pods -n %[3]s lists the pods", k.name, pod, namespace)
	case err != nil:
		return n, "", err
	case on == "":
		return n, "", fmt.Errorf("pod %s is not scheduled to a node yet", pod)
	}
	n, err = k.NodeNamed(ctx, on)
	return n, pod, err
}

// found is a cluster that returns a node that was found before, whatever EC2 reports about its instance.
type found struct {
	*kube.Cluster
	node spot.Node
}

func (f found) NodeNamed(context.Context, string) (spot.Node, error) { return f.node, nil }
