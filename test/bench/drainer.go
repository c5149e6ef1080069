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

	// notice is how long before its end EC2 warns of an instance.
	notice = 2 * time.Minute

	// awsCall is how long each call to EC2 and Auto Scaling takes: the real ones are not on this machine either.
	awsCall = 100 * time.Millisecond
)

// drainer is one way to drain nodes.
type drainer struct {
	name string
	// prepare sets up what such a program has before an event comes, and returns what it does then.
	prepare func(context.Context, target) (drainFunc, error)

	nodes []testenv.Node // instead of the scenario's
	once  bool           // only in the first round: it takes minutes
}

// drainFunc drains all nodes of the target and returns when its program considers them drained. at is the event's time.
// Each error is about one node that it gave up.
type drainFunc func(ctx context.Context, at time.Time) []error

// target is what to drain, and how to reach the API server.
type target struct {
	nodes     []testenv.Node
	left      time.Duration // until the instances end: the timeout of a drainer that has one
	server    string        // https://host:port
	ca        []byte
	token     string
	userAgent string
}

var (
	kopsSpot     = newKopsSpot("kops-spot", false)
	kopsSpotWarm = newKopsSpot("kops-spot, connected before", true)
)

// newKopsSpot handles one event per node, each with a client of its own, as separate execution environments do. Warm
// ones have a connection to the API server already.
func newKopsSpot(name string, warm bool) drainer {
	return drainer{name: name, prepare: func(ctx context.Context, t target) (drainFunc, error) {
		cloud := autoScalingGroup(t.nodes)
		policy := spot.DefaultPolicy(clusterName)
		policy.FollowLaunch = 0 // kubectl requests no replacement whose result it could wait for
		handlers := make([]*handler.Handler, len(t.nodes))
		for i, n := range t.nodes {
			c, err := kube.New(kube.WithToken(kube.Endpoint{Server: t.server, CA: fixed(string(t.ca))}, fixed(t.token), t.userAgent))
			if err != nil {
				return nil, err
			}
			if warm {
				if _, err := c.NodeNamed(ctx, n.Object().Name); err != nil {
					return nil, err
				}
			}
			handlers[i] = &handler.Handler{Cluster: c, Cloud: cloud, Policy: policy}
		}
		return func(ctx context.Context, at time.Time) []error {
			return each(len(handlers), len(handlers), func(i int) error {
				ctx, cancel := context.WithTimeout(ctx, 15*time.Minute) // Lambda's longest
				defer cancel()
				id := t.nodes[i].InstanceID
				return handle(ctx, handlers[i], spot.Drained, spot.Interruption{EventID: "bench-" + id, Kind: spot.SpotTerminate, Instance: id,
					Account: "123456789012", Region: region, Time: at})
			})
		}, nil
	}}
}

// handle demands a result of the handler.
func handle(ctx context.Context, h *handler.Handler, want spot.Result, in spot.Interruption) error {
	out, err := h.Handle(ctx, in)
	if err == nil && out.Result != want {
		err = fmt.Errorf("the result for %s is %s: %s", in.Instance, out.Result, out.Reason)
	}
	return err
}

func fixed(text string) kube.Source {
	return func(context.Context) (string, error) { return text, nil }
}

// autoScalingGroup is an AWS account in which the nodes are one Auto Scaling group.
func autoScalingGroup(nodes []testenv.Node) *spottest.Cloud {
	a := spottest.NewAWS(region)
	a.CountIDsFrom(1 << 40) // no replacement gets the ID of a node
	instances := make([]spottest.Instance, len(nodes))
	for i, n := range nodes {
		instances[i] = spottest.Instance{ID: n.InstanceID, PrivateIP: n.PrivateIP, Zone: n.Zone, Spot: true}
	}
	a.AddGroup(spottest.Group{Name: "nodes." + clusterName, Min: 1, Tags: map[string]string{spot.TagCluster: clusterName}, Spot: true,
		LaunchTime: time.Minute, DetachTime: time.Second}, instances...)
	a.Delay(spottest.AnyOperation, awsCall)
	return a.Cloud()
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
	_ = group.Wait() // the errors are in errs
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
