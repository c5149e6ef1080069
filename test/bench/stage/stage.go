// Package stage is the cluster that contenders are compared on: it sets each scene anew, lets one contender play it, and
// keeps what the API server and the kubelets noted.
package stage

import (
	"context"
	_ "embed"
	"io"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/test/bench/contender"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	namespace = "bench"

	// tokenValid is longer than any run.
	tokenValid = 4 * time.Hour
)

// kubectlRBAC is what a program that drains with kubectl's library may do. Its account is in kube-system, as kops-spot's
// is: the API server's priority levels tell that namespace's accounts from all others.
//
//go:embed kubectl.yaml
var kubectlRBAC []byte

// Stage is a running control plane with the contenders' accounts.
type Stage struct {
	cp     *testenv.ControlPlane
	client kubernetes.Interface
	tokens map[string]string // by account

	nodes  int // so far
	trials int
}

// Open starts the control plane.
func Open(ctx context.Context, log io.Writer) (s *Stage, err error) {
	s = &Stage{tokens: map[string]string{}}
	defer func() {
		if err != nil {
			_ = s.Close() // err says more
		}
	}()
	if s.cp, err = testenv.StartControlPlane(ctx, testenv.Options{ManyNodes: true, Log: log}); err != nil {
		return s, err
	}
	s.client = s.cp.Client()
	for _, manifest := range [][]byte{deploy.RBAC, kubectlRBAC} {
		if err := s.cp.Apply(ctx, manifest); err != nil {
			return s, err
		}
	}
	for _, account := range []string{contender.KopsSpotAccount, contender.KubectlAccount} {
		if s.tokens[account], err = s.cp.ServiceAccountToken(ctx, "kube-system", account, tokenValid); err != nil {
			return s, err
		}
	}
	return s, s.cp.CreateNamespace(ctx, namespace)
}

// Close ends the control plane.
func (s *Stage) Close() error {
	if s.cp == nil {
		return nil
	}
	return s.cp.Stop()
}

// Nodes adds nodes to the cluster. They send no heartbeats: those are the same load whoever drains.
func (s *Stage) Nodes(ctx context.Context, n int) ([]testenv.Node, error) {
	nodes := testenv.SpotNodes(s.nodes + n)[s.nodes:]
	for i := range nodes {
		nodes[i].Silent = true
	}
	return nodes, s.register(ctx, nodes)
}

// NamelessNode adds a node whose name kOps has never given to one of its instance.
func (s *Stage) NamelessNode(ctx context.Context) ([]testenv.Node, error) {
	nodes := testenv.SpotNodes(s.nodes + 1)[s.nodes:]
	nodes[0].Silent = true
	nodes[0].Name = "worker-" + nodes[0].InstanceID
	return nodes, s.register(ctx, nodes)
}

// Grow brings the cluster to so many nodes.
func (s *Stage) Grow(ctx context.Context, total int) error {
	if total <= s.nodes {
		return nil
	}
	_, err := s.Nodes(ctx, total-s.nodes)
	return err
}

func (s *Stage) register(ctx context.Context, nodes []testenv.Node) error {
	s.nodes += len(nodes)
	return s.cp.CreateNodes(ctx, nodes...)
}
