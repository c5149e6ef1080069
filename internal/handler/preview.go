package handler

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Preview returns what Handle would do now, without changing anything. It ends when each pod has a plan and the
// replacement is chosen, or after previewLimit.
func (h *Handler) Preview(ctx context.Context, in spot.Interruption) (spot.Outcome, error) {
	dry := *h
	writer := dryRun{h.Cluster, h.Cloud}
	dry.Cluster, dry.Cloud, dry.Autoscaler, dry.Publisher, dry.Log = writer, writer, writer, nil, nil
	c := dry.newInvocation(ctx, in)
	c.settle = 0
	ctx, cancel := context.WithTimeout(ctx, previewLimit)
	defer cancel()
	out, err := c.run(ctx)
	switch {
	case errors.Is(err, errUncertain):
		return c.ignored(err.Error()), nil
	case err != nil:
		return out, err
	}
	switch cleanup := out.Cleanup; out.Result {
	case spot.Incomplete:
		return spot.Outcome{}, errors.New(strings.Join(append([]string{out.Reason}, out.Problems...), "; "))
	case spot.NodeNotFound:
		out.Result, out.Reason = spot.Planned, "no node has registered for the instance yet"
		out.Plan = c.plan(c.target()).Summary(c.in, false, nil, c.began)
	case spot.Drained, spot.Cordoned:
		out.Result, out.Reason = spot.Planned, ""
	case spot.Recovered:
		out.Result, out.Reason = spot.Planned, "would uncordon the node"
	case spot.CleanedUp:
		out.Result, out.Reason = spot.Planned, "would delete the node's pods and release their volumes"
		switch {
		case cleanup.NodeDeletedBy == spot.DeletedByKopsSpot:
			out.Reason = "would delete the node and its pods, and release their volumes"
		case cleanup.NodeDeletedBy != "", cleanup.Tainted == nil:
			out.Reason = "the node is already deleted: would delete the pods that are left"
		}
	}
	out.Cordon, out.Replacement, out.Lifecycle, out.Cleanup, out.Pods = nil, nil, nil, nil, nil
	out.Timings = spot.Timings{Started: out.Timings.Started, Finished: spot.SecondsSince(c.in.Time, time.Now())}
	return out, nil
}

// dryRun reads from the cluster and AWS, and accepts every write without sending it.
type dryRun struct {
	spot.Cluster
	spot.Cloud
}

// finalError is an error that a dry run does not retry.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func final(err error) error {
	if errors.Is(err, spot.ErrPermanent) {
		return finalError{err}
	}
	return err
}

func (d dryRun) NodeNamed(ctx context.Context, name string) (spot.Node, error) {
	n, err := d.Cluster.NodeNamed(ctx, name)
	return n, final(err)
}

func (d dryRun) Instance(ctx context.Context, id string) (spot.Instance, error) {
	i, err := d.Cloud.Instance(ctx, id)
	return i, final(err)
}

func (d dryRun) Membership(ctx context.Context, id string) (spot.Membership, error) {
	m, err := d.Cloud.Membership(ctx, id)
	return m, final(err)
}

func (dryRun) ChangeNode(_ context.Context, n spot.Node, change func(spot.Node) spot.Node) (spot.Node, error) {
	return change(n), nil
}

// FollowPods shows the node's pods, and then none: in a dry run, all pods leave at once.
func (d dryRun) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err := d.Cluster.FollowPods(reading, node, func(ch spot.PodChange) {
		if ch.All && !listed {
			listed = true
			see(ch)
			see(spot.PodChange{All: true})
			cancel()
		}
	})
	if listed {
		<-ctx.Done()
		return nil
	}
	return final(err)
}

// FollowVolumes shows no volumes: in a dry run, all are detached at once.
func (dryRun) FollowVolumes(ctx context.Context, _ string, see func([]string)) error {
	see(nil)
	<-ctx.Done()
	return nil
}

func (dryRun) Evict(context.Context, spot.Pod, time.Duration, bool) error { return spot.ErrNotFound }
func (dryRun) FollowNode(ctx context.Context, _ spot.Node, _ func(spot.Node)) error {
	<-ctx.Done()
	return ctx.Err()
}
func (dryRun) Disrupt(_ context.Context, p spot.Pod) (spot.Pod, error)     { return p, nil }
func (dryRun) Delete(context.Context, spot.Pod, time.Duration, bool) error { return spot.ErrNotFound }
func (dryRun) DeleteNode(context.Context, spot.Node) error                 { return nil }
func (dryRun) DeleteNodeClaim(context.Context, string) error               { return nil }
func (dryRun) Record(context.Context, spot.KubeEvent) error                { return nil }
func (dryRun) Tag(context.Context, string, map[string]string) error        { return nil }
func (dryRun) Detach(context.Context, string, string) error                { return nil }
func (dryRun) Heartbeat(context.Context, spot.Action) error                { return nil }
func (dryRun) Complete(context.Context, spot.Action) error                 { return nil }
func (dryRun) Notify(context.Context, string, string, string) error        { return nil }
