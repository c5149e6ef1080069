// Package controlplane runs a whole Kubernetes control plane in one process for tests: etcd, kube-apiserver,
// controllers, scheduler, and a fake kubelet for every node. Only the kubelet, the CSI attacher and the cloud are fake.
// It is a separate program (cmd/controlplane) because it takes minutes to compile: package testenv starts it for tests
// that compile in seconds.
package controlplane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Config configures a control plane. Every duration must be positive.
type Config struct {
	Dir  string // for all files; must not contain an earlier control plane
	Port int    // of the API server on 127.0.0.1; 0 picks a free one

	NodeGrace         time.Duration // without heartbeats until a node is NotReady
	MaxWaitForUnmount time.Duration // until a volume is force-detached

	APIServerFlags []string // appended to kube-apiserver's own
}

// DefaultConfig returns the defaults of kube-controller-manager.
func DefaultConfig() Config {
	return Config{
		NodeGrace:         50 * time.Second,
		MaxWaitForUnmount: 6 * time.Minute,
	}
}

// Run runs a control plane until ctx ends, and calls ready when it works. It returns nil after a requested stop, within
// about six seconds, and an error if it could not start or one of its servers stopped. Call it once in a process that
// exits soon afterwards: the controllers are signaled to stop, but not waited for.
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
		return fmt.Errorf("%s contains an earlier control plane", dir)
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

	// Stop the clients before the server, which would wait for their watches.
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

// startClients starts all clients of the API server and waits until a test can create pods.
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
		// A namespace without its ServiceAccount rejects pods, and edit is empty until it is aggregated.
		_, err := admin.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return false
		}
		edit, err := admin.RbacV1().ClusterRoles().Get(ctx, "edit", metav1.GetOptions{})
		return err == nil && len(edit.Rules) > 0
	})
	if err != nil {
		return fmt.Errorf("waiting for the controllers: %w", err)
	}
	return nil
}

// poll calls done every 20 ms until it returns true. It fails when ctx ends, or after a minute.
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

// listenLoopback listens on the port of 127.0.0.1, or for port 0 on a free one below 32768. Linux uses the ports from
// there for outgoing connections, which could take a free port before its server opens it.
func listenLoopback(port int) (net.Listener, error) {
	if port != 0 {
		return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	const low, high, tries = 20000, 32768, 100
	var err error
	for range tries {
		var l net.Listener
		if l, err = listenLoopback(low + rand.IntN(high-low)); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("finding a free port from %d to %d: %w", low, high-1, err)
}

// freePort returns a port for a server that opens it itself.
func freePort() (int, error) {
	l, err := listenLoopback(0)
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func loopbackURL(port int) url.URL {
	return url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
}
