package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/aws"
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
		Long: `Decide as the function would if EC2 interrupted the node's instance now, without changing anything.
The output shows the deadline, the replacement and the plan for each pod. If the function's settings differ
from the defaults, set them here too (KOPS_SPOT_FORCE and so on).

NODE is the name of a node or the ID of its instance. POD is a pod on a node: NAMESPACE/NAME, or NAME with -n.`,
		Example: "  kops-spot explain i-0a1b2c3d4e5f60718\n" +
			"  kops-spot explain shop/payments-0\n" +
			"  kops-spot explain i-0a1b2c3d4e5f60718 --event " + string(spot.Rebalance) + " --output json",
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error { return c.explain(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	o.register(f)
	f.StringVarP(&o.namespace, "namespace", "n", "", "The `namespace` of the pod; the argument is then the name of a pod")
	kindFlag(cmd, &o.event, spot.WarningKinds())
	return cmd
}

func (c *console) explain(ctx context.Context, o explainOptions, arg string) error {
	kind, err := parseKind(o.event, spot.WarningKinds())
	if err != nil {
		return err
	}
	k, err := c.connect(ctx, o.kubeFlags)
	if err != nil {
		return err
	}
	e := term.Explanation{}
	if e.Policy, e.PolicyOf, err = c.policy(k.ref.Cluster); err != nil {
		return err
	}
	n, pod, err := findSubject(ctx, k, arg, o.namespace)
	if err != nil {
		return err
	}
	i, err := instanceOf(n)
	if err != nil {
		return err
	}
	e.Region, e.Pod, e.Applied = i.region, pod, spot.WhatRestoreRemoves(n)
	h := handler.Handler{Cluster: found{k.Cluster, n}, Cloud: noAWS{}, Policy: e.Policy}
	if cfg, err := c.awsConfig(ctx, i.region); err != nil {
		c.say(term.Mind, "AWS is not queried: %v, then run this again", err)
		e.NoAWS = errNoCredentials.Error()
	} else {
		h.Cloud = aws.New(cfg)
	}
	e.Outcome, err = h.Preview(ctx, e.Policy.ExampleEvent(kind, i.id, i.region, time.Now()))
	if err != nil {
		return fmt.Errorf("explaining node %s: %w", n.Name, err)
	}
	if plan := e.Outcome.Plan; c.output == asJSON && plan != nil && pod != "" {
		plan.Pods = slices.DeleteFunc(plan.Pods, func(p spot.PlannedPod) bool { return p.Namespace+"/"+p.Name != pod })
	}
	return c.printResult(e.Outcome, func(w io.Writer, o term.Options) error { return term.Explain(w, e, o) })
}

// policy reads the function's policy from the environment and returns its source.
func (c *console) policy(cluster string) (p spot.Policy, from string, err error) {
	if p, err = app.PolicyOf(c.environ); err != nil {
		return p, "", err
	}
	p.Cluster = cluster
	if reflect.DeepEqual(p, spot.DefaultPolicy(cluster)) {
		return p, "(defaults)", nil
	}
	return p, "(from the KOPS_SPOT_ variables)", nil
}

// findSubject finds the node that the argument names. If the argument names a pod, pod is its namespace/name.
func findSubject(ctx context.Context, k cluster, arg, namespace string) (n spot.Node, pod string, err error) {
	if pod = arg; namespace != "" && !strings.Contains(arg, "/") {
		pod = namespace + "/" + arg
	}
	in, name, isPod := strings.Cut(pod, "/")
	switch {
	case !isPod:
		n, err = findNode(ctx, k, arg, "; to name a pod, use NAMESPACE/"+arg)
		return n, "", err
	case strings.Contains(name, "/") || namespace != "" && namespace != in:
		return n, "", fmt.Errorf("%s: name a pod as NAMESPACE/NAME, or as NAME with -n NAMESPACE", arg)
	}
	on, err := k.NodeOfPod(ctx, in, name)
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return n, "", fmt.Errorf("pod %s not found in %s: kubectl get pods -n %s lists the pods", pod, k.ref.Cluster, in)
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

// noAWS is the Cloud of a Preview without credentials. A Preview calls these two methods only.
type noAWS struct{ spot.Cloud }

func (noAWS) Instance(context.Context, string) (spot.Instance, error) {
	return spot.Instance{}, spot.Permanent(errNoCredentials)
}

func (noAWS) Membership(context.Context, string) (spot.Membership, error) {
	return spot.Membership{}, spot.Permanent(errNoCredentials)
}
