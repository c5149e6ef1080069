package contender

import (
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

// Kubectl is kubectl's drain library in a program that drains for many nodes.
type Kubectl struct {
	Name    string
	Own     bool    // a client for each node, not one for all
	QPS     float32 // of each client; 0 is client-go's default of 5 with bursts of 10, -1 is no limit
	Workers int     // nodes that are drained at a time; 0 is all
	// Lookups has a node looked up as kOps' node termination handler does when it is to go by provider ids: twice in a
	// list of all nodes and five times in a list by the host name's label. Otherwise its name is known, and one request
	// reads it.
	Lookups bool
}

// Incumbent is what kOps' node termination handler does with the settings that kOps gives it, but for its lookups.
func Incumbent() Kubectl {
	return Kubectl{Name: "kubectl drain (a): one client, default limit, 10 workers", Workers: 10}
}

// SearchingIncumbent is Incumbent with its lookups.
func SearchingIncumbent() Kubectl {
	k := Incumbent()
	k.Name, k.Lookups = "kubectl drain (a) with the lookups of kOps' node termination handler", true
	return k
}

// ClientEach is a client with client-go's defaults for each node.
func ClientEach() Kubectl {
	return Kubectl{Name: "kubectl drain (b): a client a node, default limit", Own: true}
}

// Unlimited is one client without a limit.
func Unlimited() Kubectl {
	return Kubectl{Name: "kubectl drain (c): one client, no limit, 50 workers", QPS: -1, Workers: 50}
}

// KubectlAccount is the ServiceAccount that kubectl's library logs in as.
const KubectlAccount = "kubectl-drain"

// Contender is k as one of several.
func (k Kubectl) Contender() Contender {
	return Contender{Name: k.Name, Account: KubectlAccount, Prepare: k.prepare}
}

func (k Kubectl) prepare(ctx context.Context, p Place) (Drain, error) {
	clients := make([]kubernetes.Interface, 1)
	if k.Own {
		clients = make([]kubernetes.Interface, len(p.Nodes))
	}
	for i := range clients {
		var err error
		clients[i], err = kubernetes.NewForConfig(&rest.Config{
			Host:            p.Server,
			TLSClientConfig: rest.TLSClientConfig{CAData: p.CA},
			BearerToken:     p.Token,
			UserAgent:       p.UserAgent,
			QPS:             k.QPS,
			// Clients of one process share their connections unless each has a dial function of its own. These stand
			// for clients of several processes.
			Dial: (&net.Dialer{}).DialContext,
		})
		if err != nil {
			return nil, fmt.Errorf("preparing a client: %w", err)
		}
		if k.Own {
			continue
		}
		// A program that lives on has its connection when the event comes.
		if _, err := clients[i].Discovery().ServerVersion(); err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
	}
	workers := k.Workers
	if workers == 0 {
		workers = len(p.Nodes)
	}
	return func(ctx context.Context, _ time.Time) []error {
		return each(len(p.Nodes), workers, func(i int) error {
			return k.drainNode(ctx, clients[i%len(clients)], p.Nodes[i], p.Left)
		})
	}, nil
}

// drainNode is what kubectl's own command does, without asking and without waiting for ever.
func (k Kubectl) drainNode(ctx context.Context, client kubernetes.Interface, n testenv.Node, timeout time.Duration) error {
	node, err := k.lookUp(ctx, client, n.Object())
	if err != nil {
		return err
	}
	h := &drain.Helper{
		Ctx:                 ctx,
		Client:              client,
		Force:               true,
		GracePeriodSeconds:  -1,
		IgnoreAllDaemonSets: true,
		DeleteEmptyDirData:  true,
		Timeout:             timeout,
		// kubectl's command sets this; the zero value would ask again without any delay.
		EvictErrorRetryDelay: 5 * time.Second,
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

func (k Kubectl) lookUp(ctx context.Context, client kubernetes.Interface, like *corev1.Node) (*corev1.Node, error) {
	nodes := client.CoreV1().Nodes()
	if !k.Lookups {
		node, err := nodes.Get(ctx, like.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("reading node %s: %w", like.Name, err)
		}
		return node, nil
	}
	var found *corev1.Node
	byName := metav1.ListOptions{LabelSelector: corev1.LabelHostname + "=" + like.Name}
	for _, options := range []metav1.ListOptions{{}, {}, byName, byName, byName, byName, byName} {
		list, err := nodes.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing nodes: %w", err)
		}
		for i := range list.Items {
			if list.Items[i].Spec.ProviderID == like.Spec.ProviderID {
				found = &list.Items[i]
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no node has the provider id %s", like.Spec.ProviderID)
	}
	return found, nil
}
