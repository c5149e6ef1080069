package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	namespace    = "bench"
	pollInterval = 50 * time.Millisecond
)

//go:embed kubectl-rbac.yaml
var kubectlRBAC []byte

// cluster is a running control plane with the ServiceAccount of the drainers.
type cluster struct {
	cp     *testenv.ControlPlane
	client kubernetes.Interface
	token  string

	nodes  int // so far
	trials int // so far
}

func startCluster(ctx context.Context, log io.Writer) (_ *cluster, err error) {
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{ManyNodes: true, Log: log})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = cp.Stop() // err says more
		}
	}()
	c := &cluster{cp: cp, client: cp.Client()}
	for _, manifest := range [][]byte{deploy.RBAC, kubectlRBAC} {
		if err := cp.Apply(ctx, manifest); err != nil {
			return nil, err
		}
	}
	if c.token, err = cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", 4*time.Hour); err != nil {
		return nil, err
	}
	return c, cp.CreateNamespace(ctx, namespace)
}

// addNodes adds n nodes. They send no heartbeats, which would load the API server.
func (c *cluster) addNodes(ctx context.Context, n int) ([]testenv.Node, error) {
	nodes := testenv.SpotNodes(c.nodes + n)[c.nodes:]
	for i := range nodes {
		nodes[i].Silent = true
	}
	c.nodes += n
	return nodes, c.cp.CreateNodes(ctx, nodes...)
}

// addUnnamedNode adds a node whose name does not follow from its instance.
func (c *cluster) addUnnamedNode(ctx context.Context) ([]testenv.Node, error) {
	node := testenv.SpotNodes(c.nodes + 1)[c.nodes]
	node.Silent = true
	node.Name = "worker-" + node.InstanceID
	c.nodes++
	return []testenv.Node{node}, c.cp.CreateNodes(ctx, node)
}

// logs returns the audit and kubelet records of all trials so far.
func (c *cluster) logs(ctx context.Context) ([]testenv.AuditRecord, []testenv.KubeletRecord, error) {
	if err := sleep(ctx, time.Second); err != nil { // requests are recorded shortly after the response
		return nil, nil, err
	}
	requests, err := c.cp.AuditLog()
	if err != nil {
		return nil, nil, err
	}
	pods, err := c.cp.KubeletLog()
	return requests, pods, err
}

// waitForPods polls the pods until they meet the condition.
func (c *cluster) waitForPods(ctx context.Context, what string, timeout time.Duration,
	condition func([]corev1.Pod) bool) error {
	err := wait.PollUntilContextTimeout(ctx, pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && condition(pods.Items), err
	})
	if err != nil {
		return fmt.Errorf("waiting for the pods to be %s: %w", what, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
