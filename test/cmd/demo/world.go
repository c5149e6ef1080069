package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/awsfake"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster = "prod.example.com"
	region  = "us-east-1"
	account = "123456789012"

	launchTime = 3 * time.Second // from pending to running; EC2 takes some ten seconds
	bootTime   = 2 * time.Second // from running until its kubelet registers the node; kOps takes a minute
)

// instanceGroup is one of the cluster's kOps instance groups, with the machines it begins with. It is at its maximum:
// no group can launch one more before it gives one up.
type instanceGroup struct {
	name, zone string
	members    []member
}

// member is a machine of a group. The cluster is in the middle of a kOps upgrade: old machines have the private DNS
// name as their node's name, new ones the instance id.
type member struct {
	id, ip string
	old    bool
}

// pinnedGroup is the group that the workloads with opinions about their place live in.
const pinnedGroup = "spot-us-east-1a"

var groups = []instanceGroup{
	{"nodes-us-east-1a", "us-east-1a", []member{{"i-0d1f3a7c92b84e605", "172.20.32.11", true}, {"i-07c2e95b1a4d8f360", "172.20.32.12", false}}},
	{"nodes-us-east-1b", "us-east-1b", []member{{"i-03b8d6f0e2719ac54", "172.20.64.21", true}, {"i-0f64a1c8b37d2e590", "172.20.64.22", false}}},
	{pinnedGroup, "us-east-1a", []member{{"i-0a95e7d3c1f04b826", "172.20.32.31", true}, {"i-04e2b8f7160d9c3a5", "172.20.32.32", false}}},
}

func (g instanceGroup) asg() string { return g.name + "." + cluster }

func (m member) node() string {
	if m.old {
		return "ip-" + strings.ReplaceAll(m.ip, ".", "-") + ".ec2.internal"
	}
	return m.id
}

// nodeNames are the names of all nodes at the beginning.
func nodeNames() (names []string) {
	for _, g := range groups {
		for _, m := range g.members {
			names = append(names, m.node())
		}
	}
	return names
}

// machine is a node, its instance and its group.
type machine struct {
	node, id, group string
}

// world is everything around the function.
type world struct {
	cp     *testenv.ControlPlane
	client kubernetes.Interface
	aws    *sim.AWS
	fake   *awsfake.Server
	out    *screen
	shop   shop
	pods   *podWatch

	mu       sync.Mutex
	machines map[string]*machine // by node
}

// newWorld makes the account with its groups, and registers their machines as nodes.
func newWorld(ctx context.Context, cp *testenv.ControlPlane, out *screen) (*world, error) {
	quiet := cp.AdminConfig()
	quiet.WarningHandler = rest.NoWarnings{} // the API server finds some pods' names odd; kubelets name them so
	client, err := kubernetes.NewForConfig(quiet)
	if err != nil {
		return nil, err
	}
	w := &world{cp: cp, client: client, aws: sim.NewAWS(region), out: out, machines: map[string]*machine{}}
	w.aws.CountIDsFrom(0x5b7e4d1938a2c500)
	w.aws.OnLaunch(func(i sim.Instance) { w.boot(ctx, i) })
	for _, g := range groups {
		var members []sim.Instance
		for _, m := range g.members {
			members = append(members, sim.Instance{ID: m.id, PrivateIP: m.ip, Zone: g.zone, Spot: true})
		}
		n := len(members)
		w.aws.AddGroup(sim.Group{Name: g.asg(), Min: 1, Max: n, Desired: n, Zones: []string{g.zone}, Spot: true,
			Tags:       map[string]string{spot.TagCluster: cluster, "k8s.io/role/node": "1"},
			LaunchTime: launchTime, DetachTime: time.Second}, members...)
	}
	for _, g := range groups {
		for _, m := range g.members {
			if err := w.register(ctx, g, m.node(), m.id, m.ip); err != nil {
				return nil, err
			}
		}
	}
	w.shop.nodes = len(w.machines)
	if w.fake, err = awsfake.Start(w.aws, 0); err != nil {
		return nil, err
	}
	w.pods = watchPods(ctx, w.client, out)
	return w, nil
}

func (w *world) close() {
	_ = w.fake.Close()
}

// register is what a machine's kubelet does when it starts: it makes the Node, and shows its static pod.
func (w *world) register(ctx context.Context, g instanceGroup, node, id, ip string) error {
	err := w.cp.CreateNodes(ctx, testenv.Node{Name: node, InstanceID: id, Zone: g.zone, InstanceGroup: g.name, PrivateIP: ip})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.machines[node] = &machine{node, id, g.name}
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

// boot makes a launched instance a node of its group.
func (w *world) boot(ctx context.Context, i sim.Instance) {
	g := groups[slices.IndexFunc(groups, func(g instanceGroup) bool { return g.asg() == i.Tags["aws:autoscaling:groupName"] })]
	w.out.live("aws", "%s runs, and boots", short(i.ID))
	if sleep(ctx, bootTime) != nil {
		return
	}
	if err := w.register(ctx, g, i.ID, i.ID, i.PrivateIP); err != nil {
		if ctx.Err() == nil {
			w.out.live("aws", "%s does not become a node: %v", short(i.ID), err)
		}
		return
	}
	w.out.live("cluster", "%s is a Ready node of %s", short(i.ID), g.name)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// busiest is the machine with most pods to move.
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

// show is the table of the cluster's nodes, and what makes it hard to leave one.
func (w *world) show(kind spot.Kind, victim *machine) {
	w.out.line("\ncluster %s\n", cluster)
	w.out.line("  %-17s  %-11s  %-16s  %4s  %4s", "group (at its max)", "zone", "node", "move", "stay")
	for _, g := range groups {
		group, zone := g.name, g.zone
		for _, m := range g.members {
			on := w.pods.on(m.node())
			move := len(w.pods.toMove(m.node()))
			mark := ""
			if m.node() == victim.node {
				mark = "  <- taken away"
			}
			w.out.line("  %-18s  %-10s  %-16s  %4d  %4d%s", group, zone, short(m.node()), move, len(on)-move, mark)
			group, zone = "", ""
		}
	}
	w.out.line("\n  nodes      have both names that kOps gives them: private DNS name (before 1.29), instance id (since)")
	w.out.line("  payments   have a budget: one of %d may be missing", payments.replicas)
	if kind == spot.SpotTerminate {
		w.out.line("  orders-db  have a volume each, and no two of them share a node")
	} else {
		w.out.line("  orders-db  have a volume each")
	}
}

// stays says whether a drain leaves a pod where it is.
func stays(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	return owner != nil && (owner.Kind == "DaemonSet" || owner.Kind == "Node")
}
