// Package controlplane is a whole Kubernetes control plane in one process, for tests: etcd, kube-apiserver, the
// controllers, the scheduler, and a fake kubelet for every node. All but the kubelet and the CSI attacher are the real
// ones. It is a program of its own (cmd/controlplane) because it takes minutes to compile: package testenv starts it for
// tests that compile in seconds.
package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Config is how a control plane is run. Every duration must be positive.
type Config struct {
	Dir  string // for everything it writes; must not hold an earlier control plane
	Port int    // of the API server on 127.0.0.1; 0 picks a free one

	NodeGrace         time.Duration // without heartbeats until a node is NotReady
	MaxWaitForUnmount time.Duration // until a volume is detached from a node that does not let go of it

	APIServerFlags []string // appended to kube-apiserver's own
}

// DefaultConfig returns the values of kube-controller-manager.
func DefaultConfig() Config {
	return Config{
		NodeGrace:         50 * time.Second,
		MaxWaitForUnmount: 6 * time.Minute,
	}
}

// Run runs a control plane until ctx ends, and calls ready once everything works. It returns nil after a stop that was
// asked for, within about six seconds, and an error if it could not start or one of its servers ended by itself. It may
// be called once in a process, which should end soon after: the controllers are told to stop but not waited for.
func Run(ctx context.Context, cfg Config, ready func(protocol.Ready)) error {
	begin := time.Now()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if _, err := os.Stat(in("etcd")); err == nil {
		return fmt.Errorf("%s holds an earlier control plane", dir)
	}
	logs, err := os.OpenFile(in(protocol.ServerLogFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close()
	record, err := newKubeletLog(in(protocol.KubeletLogFile))
	if err != nil {
		return err
	}
	defer record.close()
	creds, err := newCredentials(dir)
	if err != nil {
		return err
	}

	etcd, stopEtcd, err := startEtcd(ctx, in("etcd"), logs.Name())
	if err != nil {
		return err
	}
	defer stopEtcd()
	listener, err := listenLoopback(cfg.Port)
	if err != nil {
		return fmt.Errorf("listening for the API server: %w", err)
	}
	server, err := startAPIServer(listener, dir, etcd, creds, logs, cfg.APIServerFlags)
	if err != nil {
		listener.Close()
		return err
	}
	defer server.stop()

	// The clients end before the server: it would wait for those that still watch.
	clients, stopClients := context.WithCancel(ctx)
	defer stopClients()
	if err := startClients(clients, server, creds, cfg, record); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := creds.writeKubeconfig(in(protocol.KubeconfigFile), server.url); err != nil {
		return err
	}
	ready(protocol.Ready{
		Seconds:    time.Since(begin).Seconds(),
		Server:     server.url,
		Kubeconfig: in(protocol.KubeconfigFile),
	})
	select {
	case <-ctx.Done():
		return nil
	case <-server.ended:
		return fmt.Errorf("running kube-apiserver: %w", server.cause())
	}
}

// startClients starts everything that works through the API server, and waits until a test can create pods.
func startClients(ctx context.Context, server *apiServer, creds *credentials, cfg Config, record *kubeletLog) error {
	admin, err := clientset.NewForConfig(creds.client(controllersUser, server.url))
	if err != nil {
		return err
	}
	if err := server.waitReady(ctx, admin); err != nil {
		return err
	}
	if err := startControllers(ctx, creds.client(controllersUser, server.url), creds, cfg); err != nil {
		return err
	}
	if err := startScheduler(ctx, creds.client(schedulerUser, server.url)); err != nil {
		return err
	}
	if err := startCSIAttacher(ctx, creds.client(attacherUser, server.url)); err != nil {
		return err
	}
	if err := startKubelet(ctx, creds.client(kubeletUser, server.url), cfg.NodeGrace, record); err != nil {
		return err
	}
	err = poll(ctx, func() bool {
		// Pods are refused in a namespace without its ServiceAccount, and edit is empty until it is aggregated.
		_, err := admin.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return false
		}
		edit, err := admin.RbacV1().ClusterRoles().Get(ctx, "edit", metav1.GetOptions{})
		return err == nil && len(edit.Rules) > 0
	})
	if err != nil {
		return fmt.Errorf("waiting for the controllers' first work: %w", err)
	}
	return nil
}

// poll asks done every 20 ms until it says yes. It gives up with ctx, or after a minute.
func poll(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("not ready after a minute"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
