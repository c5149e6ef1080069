package contender

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

const (
	cluster = "prod.example.com"
	region  = "us-east-1"

	// AWSCall is what each call of EC2 and Auto Scaling takes: they are not on this machine in truth either.
	AWSCall = 100 * time.Millisecond

	// invocation is Lambda's longest.
	invocation = 15 * time.Minute
)

// KopsSpotAccount is the ServiceAccount that the shipped RBAC binds.
const KopsSpotAccount = "kops-spot"

// KopsSpot handles one event for each node, each with a client of its own, as one execution environment each would.
func KopsSpot() Contender {
	return kopsSpot("kops-spot", false)
}

// WarmKopsSpot is KopsSpot in environments that have a connection to the API server already.
func WarmKopsSpot() Contender {
	return kopsSpot("kops-spot, connected before", true)
}

func kopsSpot(name string, warm bool) Contender {
	return Contender{Name: name, Account: KopsSpotAccount, Prepare: func(ctx context.Context, p Place) (Drain, error) {
		cloud := account(p)
		policy := spot.DefaultPolicy(cluster)
		policy.Follow = 0 // no other asks for a replacement whose answer it could wait for
		handlers := make([]*spot.Handler, len(p.Nodes))
		for i, n := range p.Nodes {
			c, err := kube.New(kube.WithToken(kube.Endpoint{Server: p.Server, CA: fixed(string(p.CA))}, fixed(p.Token), p.UserAgent))
			if err != nil {
				return nil, err
			}
			if warm {
				if _, err := c.NodeNamed(ctx, n.Object().Name); err != nil {
					return nil, err
				}
			}
			handlers[i] = &spot.Handler{Cluster: c, Cloud: cloud, Policy: policy}
		}
		return func(ctx context.Context, at time.Time) []error {
			return each(len(handlers), len(handlers), func(i int) error {
				ctx, cancel := context.WithTimeout(ctx, invocation)
				defer cancel()
				id := p.Nodes[i].InstanceID
				out, err := handlers[i].Handle(ctx, spot.Interruption{EventID: "bench-" + id, Kind: spot.SpotTerminate, Instance: id,
					Account: "123456789012", Region: region, Time: at})
				if err == nil && out.Result != spot.Emptied {
					err = fmt.Errorf("draining the node of %s: %s: %s", id, out.Result, out.Reason)
				}
				return err
			})
		}, nil
	}}
}

func fixed(text string) kube.Source {
	return func(context.Context) (string, error) { return text, nil }
}

// account is an AWS account in which the nodes are one Auto Scaling group.
func account(p Place) *sim.Cloud {
	a := sim.NewAWS(region)
	a.CountIDsFrom(1 << 40) // replacements are none of the nodes
	instances := make([]sim.Instance, len(p.Nodes))
	for i, n := range p.Nodes {
		instances[i] = sim.Instance{ID: n.InstanceID, PrivateIP: n.PrivateIP, Zone: n.Zone, Spot: true}
	}
	a.AddGroup(sim.Group{Name: "nodes." + cluster, Min: 1, Tags: map[string]string{spot.TagCluster: cluster}, Spot: true,
		LaunchTime: time.Minute, DetachTime: time.Second}, instances...)
	a.Delay(sim.AnyOperation, AWSCall)
	return a.Cloud()
}

// each calls do with 0 to n-1 from so many workers, and returns the errors.
func each(n, workers int, do func(int) error) (errs []error) {
	jobs := make(chan int, n)
	for i := range n {
		jobs <- i
	}
	close(jobs)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range jobs {
				if err := do(i); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errs
}
