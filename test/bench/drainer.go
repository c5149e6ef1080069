package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	clusterName = "prod.example.com"
	region      = "us-east-1"

	// notice is the time between EC2's warning and the end of the instance.
	notice = 2 * time.Minute

	// awsCall is the simulated duration of each call to EC2 and Auto Scaling.
	awsCall = 100 * time.Millisecond
)

// drainer is one way to drain nodes.
type drainer struct {
	name string
	// prepare sets up the program before the event and returns the function that handles the event.
	prepare func(context.Context, target) (drainFunc, error)

	nodes []testenv.Node // instead of the scenario's
	once  bool           // run only in the first round, because it takes minutes

	window bool // where the scenario ends with a shutdown, the kubelet delays it by kOps' defaults
}

// kOps' defaults for how long a kubelet delays a shutdown, unless the CNI is amazonvpc: for ordinary pods, then for
// critical pods.
const ordinaryWindow, criticalWindow = 20 * time.Second, 10 * time.Second

// withWindow is the drainer on nodes whose kubelet delays a shutdown.
func (d drainer) withWindow() drainer {
	d.name, d.window = d.name+", window of 30 s", true
	return d
}

// drainFunc drains all nodes of the target and returns when the program considers them drained. at is the time of the
// event. It returns one error for each node that it failed to drain.
type drainFunc func(ctx context.Context, at time.Time) []error

// target is the nodes to drain, and the access to the API server.
type target struct {
	nodes     []testenv.Node
	timeLeft  time.Duration // until the instances terminate: the timeout of drainers that have one
	server    string        // https://host:port
	ca        []byte
	token     string
	userAgent string
}

var (
	kopsSpot       = newKopsSpot("kops-spot", false, 0, nil)
	kopsSpotWarm   = newKopsSpot("kops-spot, connected before", true, 0, nil)
	kopsSpotWindow = newKopsSpot("kops-spot with KOPS_SPOT_SHUTDOWN_GRACE=20s", false, ordinaryWindow, nil)
)

// newKopsSpot handles one event per node, each with a separate client, as separate execution environments do. If warm,
// the clients are connected to the API server before the event. grace is Policy.ShutdownGrace; without a publisher,
// nothing is published.
func newKopsSpot(name string, warm bool, grace time.Duration, publisher spot.Publisher) drainer {
	return drainer{name: name, prepare: func(ctx context.Context, t target) (drainFunc, error) {
		cloud := autoScalingGroup(t.nodes).Cloud()
		policy := spot.DefaultPolicy(clusterName)
		policy.ShutdownGrace = grace
		handlers := make([]*handler.Handler, len(t.nodes))
		for i, n := range t.nodes {
			endpoint := kube.Endpoint{Server: t.server, CA: fixed(string(t.ca))}
			c, err := kube.New(kube.WithToken(endpoint, fixed(t.token), t.userAgent))
			if err != nil {
				return nil, err
			}
			if warm {
				if _, err := c.NodeNamed(ctx, n.Object().Name); err != nil {
					return nil, err
				}
			}
			handlers[i] = &handler.Handler{Cluster: c, Cloud: cloud, Policy: policy, Publisher: publisher}
		}
		return func(ctx context.Context, at time.Time) []error {
			return each(len(handlers), len(handlers), func(i int) error {
				ctx, cancel := context.WithTimeout(ctx, 15*time.Minute) // Lambda's maximum
				defer cancel()
				id := t.nodes[i].InstanceID
				return handle(ctx, handlers[i], spot.Drained, spot.Interruption{EventID: "bench-" + id,
					Kind: spot.SpotTerminate, Instance: id, Account: "123456789012", Region: region, Time: at})
			})
		}, nil
	}}
}

// handle runs the handler and returns an error if the result is not want.
func handle(ctx context.Context, h *handler.Handler, want spot.Result, in spot.Interruption) error {
	out, err := h.Handle(ctx, in)
	if err == nil && out.Result != want {
		err = fmt.Errorf("result of %s: %s: %s", in.Instance, out.Result, out.Reason)
	}
	return err
}

func fixed(text string) kube.Source {
	return func(context.Context) (string, error) { return text, nil }
}

// autoScalingGroup returns an AWS account in which the nodes form one Auto Scaling group.
func autoScalingGroup(nodes []testenv.Node) *spottest.AWS {
	a := spottest.NewAWS(region)
	a.CountIDsFrom(1 << 40) // to keep the IDs of replacements distinct
	instances := make([]spottest.Instance, len(nodes))
	for i, n := range nodes {
		instances[i] = spottest.Instance{ID: n.InstanceID, PrivateIP: n.PrivateIP, Zone: n.Zone, Spot: true}
	}
	a.AddGroup(spottest.Group{Name: "nodes." + clusterName, Min: 1,
		Tags: map[string]string{spot.TagCluster: clusterName}, Spot: true,
		LaunchTime: time.Minute, DetachTime: time.Second}, instances...)
	a.Delay(spottest.AnyOperation, awsCall)
	return a
}

// each calls do with 0 to n-1, with at most workers calls at a time, and returns the errors.
func each(n, workers int, do func(int) error) []error {
	errs := make([]error, n)
	var group errgroup.Group
	group.SetLimit(workers)
	for i := range n {
		group.Go(func() error {
			errs[i] = do(i)
			return nil
		})
	}
	_ = group.Wait() // errors are in errs
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
