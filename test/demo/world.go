package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/demo/story"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	"github.com/castai/kops-spot/test/testenv"
)

const account = "123456789012"

// nodeNames returns the names of the initial nodes.
func nodeNames() (names []string) {
	for _, g := range story.Groups {
		for _, m := range g.Members {
			names = append(names, m.Node())
		}
	}
	return names
}

// machine is a node with its instance and its group.
type machine struct {
	node, id, group string
}

// world is the environment of the function: cluster and AWS account.
type world struct {
	cp     *testenv.ControlPlane
	client kubernetes.Interface
	aws    *spottest.AWS
	fake   *fakeaws.Server
	out    *story.Screen
	shop   shop
	pods   *podWatch

	mu       sync.Mutex
	machines map[string]*machine // by node
}

// newWorld creates the account with its groups and registers their instances as nodes.
func newWorld(ctx context.Context, cp *testenv.ControlPlane, out *story.Screen) (*world, error) {
	quiet := cp.AdminConfig()
	quiet.WarningHandler = rest.NoWarnings{} // the API server warns about the names of static pods
	client, err := kubernetes.NewForConfig(quiet)
	if err != nil {
		return nil, err
	}
	w := &world{cp: cp, client: client, aws: spottest.NewAWS(story.Region), out: out, machines: map[string]*machine{}}
	w.aws.CountIDsFrom(0x5b7e4d1938a2c500)
	w.aws.OnLaunch(func(i spottest.Instance) { w.boot(ctx, i) })
	for _, g := range story.Groups {
		var members []spottest.Instance
		for _, m := range g.Members {
			members = append(members, spottest.Instance{ID: m.ID, PrivateIP: m.IP, Zone: g.Zone, Spot: true})
		}
		n := len(members)
		w.aws.AddGroup(spottest.Group{Name: g.ASG(), Min: 1, Max: n, Desired: n, Zones: []string{g.Zone}, Spot: true,
			Tags:       map[string]string{spot.TagCluster: story.Cluster, "k8s.io/role/node": "1"},
			LaunchTime: story.LaunchTime, DetachTime: time.Second}, members...)
	}
	for _, g := range story.Groups {
		for _, m := range g.Members {
			if err := w.register(ctx, g, m.Node(), m.ID, m.IP); err != nil {
				return nil, err
			}
		}
	}
	w.shop.nodes = len(w.machines)
	if w.fake, err = fakeaws.Start(w.aws, 0); err != nil {
		return nil, err
	}
	w.pods = watchPods(ctx, w.client, out)
	return w, nil
}

func (w *world) close() {
	_ = w.fake.Close()
}

// register does what a kubelet does at its start: it creates the Node and the mirror pod of its static pod.
func (w *world) register(ctx context.Context, g story.Group, node, id, ip string) error {
	err := w.cp.CreateNodes(ctx, testenv.Node{Name: node, InstanceID: id, Zone: g.Zone, InstanceGroup: g.Name, PrivateIP: ip})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.machines[node] = &machine{node, id, g.Name}
	w.mu.Unlock()
	n, err := w.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading node %s: %w", node, err)
	}
	_, err = w.client.CoreV1().Pods(system).Create(ctx, kubeProxy(n), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating the static pod of node %s: %w", node, err)
	}
	return nil
}

// boot registers a launched instance as a node of its group.
func (w *world) boot(ctx context.Context, i spottest.Instance) {
	g := story.Groups[slices.IndexFunc(story.Groups, func(g story.Group) bool {
		return g.ASG() == i.Tags["aws:autoscaling:groupName"]
	})]
	w.out.Live("aws", "%s is running and boots", story.Short(i.ID))
	if sleep(ctx, story.BootTime) != nil {
		return
	}
	if err := w.register(ctx, g, i.ID, i.ID, i.PrivateIP); err != nil {
		if ctx.Err() == nil {
			w.out.Live("aws", "registering the node of %s failed: %v", story.Short(i.ID), err)
		}
		return
	}
	w.out.Live("cluster", "%s joined as a Ready node of %s", story.Short(i.ID), g.Name)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// busiest returns the machine with the most pods to move.
func (w *world) busiest() *machine {
	var best *machine
	most := -1
	for _, name := range nodeNames() {
		if n := len(w.pods.toMove(name)); n > most {
			best, most = w.machines[name], n
		}
	}
	return best
}

// show prints the nodes, and what makes draining one hard.
func (w *world) show(kind spot.Kind, victim *machine) {
	w.out.Line("\ncluster %s\n", story.Cluster)
	w.out.Line("  %-17s  %-11s  %-16s  %4s  %4s", "group (at its max)", "zone", "node", "move", "stay")
	for _, g := range story.Groups {
		group, zone := g.Name, g.Zone
		for _, m := range g.Members {
			on := w.pods.on(m.Node())
			move := len(w.pods.toMove(m.Node()))
			mark := ""
			if m.Node() == victim.node {
				mark = "  <- interrupted"
			}
			w.out.Line("  %-18s  %-10s  %-16s  %4d  %4d%s", group, zone, story.Short(m.Node()), move, len(on)-move, mark)
			group, zone = "", ""
		}
	}
	w.out.Line("\n  node names  private DNS name (kOps before 1.29) or instance ID (since 1.29)")
	w.out.Line("  payments    a PodDisruptionBudget allows one of %d pods to be unavailable", story.Payments.Replicas)
	if kind == spot.SpotTerminate {
		w.out.Line("  orders-db   one volume per pod, at most one pod per node")
	} else {
		w.out.Line("  orders-db   one volume per pod")
	}
}

// stays reports whether a drain skips the pod.
func stays(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	return owner != nil && (owner.Kind == "DaemonSet" || owner.Kind == "Node")
}
