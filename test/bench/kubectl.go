package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/drain"

	"github.com/castai/kops-spot/test/testenv"
)

// kubectl is a program that drains many nodes with kubectl's drain library.
type kubectl struct {
	clientPerNode bool    // instead of one for all
	qps           float32 // of each client; 0 is client-go's default of 5 with bursts of 10, -1 is no limit
	workers       int     // nodes drained at a time; 0 is all
	// lookups finds the node by provider ID, as kOps' node termination handler does: it lists all nodes twice and lists
	// by hostname label five times. Without it, the name is known and one request reads the node.
	lookups bool
}

var (
	// kubectlA has the settings of kOps' node termination handler.
	kubectlA        = kubectl{workers: 10}.drainer("kubectl drain (a): one client, default limit, 10 workers")
	kubectlALookups = kubectl{workers: 10,
		lookups: true}.drainer("kubectl drain (a) with the lookups of kOps' node termination handler")
	kubectlB = kubectl{clientPerNode: true}.drainer("kubectl drain (b): a client a node, default limit")
	kubectlC = kubectl{qps: -1, workers: 50}.drainer("kubectl drain (c): one client, no limit, 50 workers")
)

func (k kubectl) drainer(name string) drainer {
	return drainer{name: name, prepare: k.prepare}
}

func (k kubectl) prepare(ctx context.Context, t target) (drainFunc, error) {
	clients := make([]kubernetes.Interface, 1)
	if k.clientPerNode {
		clients = make([]kubernetes.Interface, len(t.nodes))
	}
	for i := range clients {
		var err error
		clients[i], err = kubernetes.NewForConfig(&rest.Config{
			Host:            t.server,
			TLSClientConfig: rest.TLSClientConfig{CAData: t.ca},
			BearerToken:     t.token,
			UserAgent:       t.userAgent,
			QPS:             k.qps,
			// Clients of one process share their connections unless each has its own dial function. These stand for
			// clients of several processes.
			Dial: (&net.Dialer{}).DialContext,
		})
		if err != nil {
			return nil, fmt.Errorf("preparing a client: %w", err)
		}
		if k.clientPerNode {
			continue
		}
		// A long-running program is already connected when the event arrives.
		if _, err := clients[i].Discovery().ServerVersion(); err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
	}
	return func(ctx context.Context, _ time.Time) []error {
		return each(len(t.nodes), cmp.Or(k.workers, len(t.nodes)), func(i int) error {
			return k.drainNode(ctx, clients[i%len(clients)], t.nodes[i], t.timeLeft)
		})
	}, nil
}

// drainNode does what kubectl drain does, with a timeout.
func (k kubectl) drainNode(ctx context.Context, client kubernetes.Interface, n testenv.Node,
	timeout time.Duration) error {
	node, err := k.find(ctx, client, n.Object())
	if err != nil {
		return err
	}
	h := &drain.Helper{
		Ctx:                  ctx,
		Client:               client,
		Force:                true,
		GracePeriodSeconds:   -1,
		IgnoreAllDaemonSets:  true,
		DeleteEmptyDirData:   true,
		Timeout:              timeout,
		EvictErrorRetryDelay: 5 * time.Second, // kubectl's default; zero retries without delay
		Out:                  io.Discard,
		ErrOut:               io.Discard,
	}
	if err := drain.RunCordonOrUncordon(h, node, true); err != nil {
		return fmt.Errorf("cordoning node %s: %w", node.Name, err)
	}
	if err := drain.RunNodeDrain(h, node.Name); err != nil {
		return fmt.Errorf("draining node %s: %w", node.Name, err)
	}
	return nil
}

// find reads the node from the API server.
func (k kubectl) find(ctx context.Context, client kubernetes.Interface, want *corev1.Node) (found *corev1.Node,
	err error) {
	nodes := client.CoreV1().Nodes()
	if !k.lookups {
		if found, err = nodes.Get(ctx, want.Name, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("reading node %s: %w", want.Name, err)
		}
		return found, nil
	}
	byName := metav1.ListOptions{LabelSelector: corev1.LabelHostname + "=" + want.Name}
	for _, options := range []metav1.ListOptions{{}, {}, byName, byName, byName, byName, byName} {
		list, err := nodes.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing nodes: %w", err)
		}
		for i := range list.Items {
			if list.Items[i].Spec.ProviderID == want.Spec.ProviderID {
				found = &list.Items[i]
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no node has the provider ID %s", want.Spec.ProviderID)
	}
	return found, nil
}
