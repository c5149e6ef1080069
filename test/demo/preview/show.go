package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/demo/story"
)

// The interrupted node, and the nodes that its pods move to.
var (
	pinned = story.Groups[2]
	victim = pinned.Members[0]
	next   = pinned.Members[1].Node()
	other  = story.Groups[1].Members[1].Node()
)

// preview is the demo's cluster and account, in memory.
type preview struct {
	out     *story.Screen
	cluster *spottest.Cluster
	aws     *spottest.AWS
}

// show drains a node of the in-memory cluster with the real handler. It returns when the pods are Ready elsewhere.
func show(ctx context.Context, out *story.Screen) error {
	p := &preview{out: out, cluster: spottest.NewCluster(), aws: spottest.NewAWS(story.Region)}
	p.aws.CountIDsFrom(0x5b7e4d1938a2c500)
	p.fill()
	h := &handler.Handler{Cluster: p.cluster, Cloud: p.aws.Cloud(), Policy: spot.DefaultPolicy(story.Cluster),
		Log: slog.New(slog.NewJSONHandler(&story.FunctionLog{Out: out}, nil))}
	event := time.Now().Truncate(time.Second)
	out.Begin(event)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		p.watch(watching)
	}()
	out.Live("ec2", "%s %s", spot.SpotTerminate.Description(), story.Short(victim.ID))
	outcome, err := h.Handle(ctx, spot.Interruption{EventID: "preview", Kind: spot.SpotTerminate,
		Instance: victim.ID, Region: story.Region, Time: event})
	if err != nil {
		return err
	}
	<-ready
	out.Begin(time.Time{})
	out.Line("\n%s: %d pods moved from %s. End of the preview; still compiling.\n",
		outcome.Result, len(outcome.Pods), story.Short(victim.Node()))
	return nil
}

// fill creates the groups, their nodes and the pods of the interrupted node.
func (p *preview) fill() {
	p.aws.OnLaunch(p.boot)
	for _, g := range story.Groups {
		var members []spottest.Instance
		for _, m := range g.Members {
			members = append(members, spottest.Instance{ID: m.ID, PrivateIP: m.IP, Zone: g.Zone, Spot: true})
			p.cluster.AddNode(spot.Node{Name: m.Node(), ProviderID: "aws:///" + g.Zone + "/" + m.ID})
		}
		p.aws.AddGroup(spottest.Group{Name: g.ASG(), Zones: []string{g.Zone}, Spot: true,
			Tags:       map[string]string{spot.TagCluster: story.Cluster},
			LaunchTime: story.LaunchTime, DetachTime: time.Second}, members...)
	}
	for _, pods := range []struct {
		app         story.App
		kind, to    string
		here, there int // number of pods on the victim, and on the node they move to
	}{
		{story.Web, "ReplicaSet", other, 2, 0},
		{story.API, "ReplicaSet", other, 1, 0},
		{story.Worker, "ReplicaSet", other, 1, 0},
		{story.Payments, "ReplicaSet", next, 2, 2},
		{story.OrdersDB, "StatefulSet", "", 1, 1}, // anti-affinity: waits for the new node
	} {
		for i := range pods.here + pods.there {
			node := victim.Node()
			if i >= pods.here {
				node = next
			}
			ready := pods.app.Ready
			if pods.to == "" {
				ready = time.Hour // until boot makes it Ready
			}
			p.cluster.AddPod(spottest.Pod{Node: node, Exit: pods.app.Exit,
				Replacement: &spottest.Replacement{Node: pods.to, Ready: ready},
				Pod: spot.Pod{Namespace: "shop", Name: fmt.Sprintf("%s-%d", pods.app.Name, i),
					GracePeriod: time.Duration(pods.app.Grace) * time.Second,
					Owner:       spot.Owner{Kind: pods.kind, Name: pods.app.Name, UID: pods.app.Name}}})
		}
	}
	p.cluster.AddBudget(spottest.Budget{Namespace: "shop", Name: story.Payments.Name, Owner: story.Payments.Name,
		Available: story.Payments.Replicas - 1})
}

// boot registers a launched instance as a node and runs the pending pod there.
func (p *preview) boot(i spottest.Instance) {
	p.out.Live("aws", "%s is running and boots", story.Short(i.ID))
	time.Sleep(story.BootTime)
	p.cluster.AddNode(spot.Node{Name: i.ID, ProviderID: "aws:///" + i.Zone + "/" + i.ID})
	p.out.Live("cluster", "%s joined as a Ready node of %s", story.Short(i.ID), pinned.Name)
	for _, pod := range p.cluster.Pods() {
		if pod.Node == "" {
			p.cluster.ChangePod(pod.ID(), func(pod *spottest.Pod) { pod.Node = i.ID })
			time.AfterFunc(story.OrdersDB.Ready, func() {
				p.cluster.ChangePod(pod.ID(), func(pod *spottest.Pod) { pod.Pending = false })
			})
		}
	}
}

// watch prints the progress of the pods until all replacements are Ready.
func (p *preview) watch(ctx context.Context) {
	var leaving []spottest.Pod
	before := map[string]bool{} // by UID
	for _, pod := range p.cluster.Pods() {
		before[pod.UID] = true
		if pod.Node == victim.Node() {
			leaving = append(leaving, pod)
		}
	}
	shown := map[string]string{} // last printed state by UID
	show := func(pod spottest.Pod, color, what, more string) {
		if shown[pod.UID] != what {
			shown[pod.UID] = what
			p.out.Live("pod", "%-15s  %s  %s", pod.Name, p.out.Paint(color, fmt.Sprintf("%-10s", what)), more)
		}
	}
	for total, ready := len(leaving), 0; ready < total && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		pods := p.cluster.Pods()
		for len(leaving) > 0 {
			i := slices.IndexFunc(leaving, func(old spottest.Pod) bool {
				return !slices.ContainsFunc(pods, func(pod spottest.Pod) bool { return pod.UID == old.UID })
			})
			if i < 0 {
				break
			}
			gone := leaving[i]
			leaving = slices.Delete(leaving, i, i+1)
			show(gone, story.Faint, "terminated", fmt.Sprintf("%d remaining", len(leaving)))
		}
		ready = 0
		for _, pod := range pods {
			switch {
			case before[pod.UID]:
			case !pod.Pending:
				ready++
				show(pod, story.Green, "Ready", "on "+story.Short(pod.Node))
			case pod.Node == "":
				show(pod, story.Yellow, "Pending", "no suitable node yet")
			}
		}
	}
}
