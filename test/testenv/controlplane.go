// Package testenv sets up the environment of tests, benchmarks and the demo. It compiles quickly: what takes minutes to
// compile is a separate program that testenv builds and starts.
package testenv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Options configure a control plane. The zero value has Kubernetes' defaults and a temporary directory.
type Options struct {
	// Dir has the control plane's files. It is created if necessary and kept. Empty is a temporary directory that Stop
	// removes.
	Dir string
	// Log receives the progress of a long build and the errors of the control plane. May be nil.
	Log io.Writer
	// Port of the API server on 127.0.0.1; 0 chooses a free port.
	Port int

	// Zero leaves each of these at kube-controller-manager's default.
	NodeGrace         time.Duration // without heartbeats until a node is NotReady: 50 s
	MaxWaitForUnmount time.Duration // until a volume that a node does not unmount is force-detached: 6 min

	// ManyNodes is for thousands of nodes. They are created without the not-ready taint, which the node lifecycle
	// controller removes from only about a hundred nodes per second. If NodeGrace is zero, missing heartbeats count
	// only after a day.
	ManyNodes bool

	// APIServerFlags override kube-apiserver's own.
	APIServerFlags []string
}

func (o Options) args() []string {
	args := []string{"-until-stdin-closes", "-dir", o.Dir, "-port", strconv.Itoa(o.Port)}
	if o.ManyNodes {
		o.NodeGrace = cmp.Or(o.NodeGrace, 24*time.Hour)
		args = append(args, "-apiserver-flag", "--disable-admission-plugins=TaintNodesByCondition")
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"-node-grace", o.NodeGrace},
		{"-max-wait-for-unmount", o.MaxWaitForUnmount},
	} {
		if d.value != 0 {
			args = append(args, d.flag, d.value.String())
		}
	}
	for _, flag := range o.APIServerFlags {
		args = append(args, "-apiserver-flag", flag)
	}
	return args
}

// ControlPlane is a running control plane. It stops with Stop or when this process exits.
type ControlPlane struct {
	dir     string
	tempDir string // to be removed; empty when the caller chose the directory
	ready   protocol.Ready
	admin   *rest.Config
	client  kubernetes.Interface

	process *process
	stop    func() error
}

// StartControlPlane builds the control plane if necessary, which takes minutes the first time, starts it and returns
// when pods can be created, about four seconds later. ctx limits only the start.
func StartControlPlane(ctx context.Context, opts Options) (*ControlPlane, error) {
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	program, err := BuildControlPlane(ctx, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("building the control plane: %w", err)
	}
	cp := &ControlPlane{}
	if opts.Dir == "" {
		if cp.tempDir, err = os.MkdirTemp("", "controlplane-"); err != nil {
			return nil, err
		}
		opts.Dir = cp.tempDir
	}
	cp.dir = opts.Dir
	cp.stop = sync.OnceValue(cp.end)
	if err := cp.start(ctx, program, opts); err != nil {
		_ = cp.Stop() // the first error says more
		return nil, fmt.Errorf("starting the control plane: %w", err)
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context, program string, opts Options) error {
	var err error
	if cp.process, err = startProcess(ctx, "control plane", program, opts.Log, &cp.ready, opts.args()...); err != nil {
		return err
	}
	if cp.admin, err = clientcmd.BuildConfigFromFlags("", cp.ready.Kubeconfig); err != nil {
		return err
	}
	cp.admin.QPS = -1
	cp.client, err = kubernetes.NewForConfig(cp.admin)
	return err
}

// Stop stops the control plane and waits for it, a second or two. It returns an error if the control plane had failed
// before or had to be killed after ten seconds. Later calls return the result of the first.
func (cp *ControlPlane) Stop() error { return cp.stop() }

func (cp *ControlPlane) end() error {
	if cp.tempDir != "" {
		defer os.RemoveAll(cp.tempDir)
	}
	if cp.process == nil {
		return nil
	}
	return cp.process.stop()
}

// Kubeconfig returns the path of the administrator's kubeconfig.
func (cp *ControlPlane) Kubeconfig() string { return cp.ready.Kubeconfig }

// ReadyAfter returns how long the control plane took from its start until it was ready.
func (cp *ControlPlane) ReadyAfter() time.Duration {
	return time.Duration(cp.ready.Seconds * float64(time.Second))
}

// AdminConfig returns cluster-admin access without a client-side rate limit.
func (cp *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(cp.admin) }

// Client returns a client with the administrator's access.
func (cp *ControlPlane) Client() kubernetes.Interface { return cp.client }

// TokenConfig returns access with the bearer token, without a client-side rate limit.
func (cp *ControlPlane) TokenConfig(token string) *rest.Config {
	cfg := rest.AnonymousClientConfig(cp.admin)
	cfg.BearerToken = token
	cfg.QPS = -1
	return cfg
}

// ServiceAccountToken returns a token of the ServiceAccount that is valid for at least the duration. The API server's
// minimum is ten minutes.
func (cp *ControlPlane) ServiceAccountToken(ctx context.Context, namespace, name string, valid time.Duration) (string,
	error) {
	seconds := int64(valid.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := cp.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("requesting a token for %s/%s: %w", namespace, name, err)
	}
	return answer.Status.Token, nil
}

// CreateNamespace creates a namespace and waits for its default ServiceAccount, without which no pod can be created.
func (cp *ControlPlane) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := cp.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 30*time.Second, true,
		func(ctx context.Context) (bool, error) {
			_, err := cp.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
	if err != nil {
		return fmt.Errorf("waiting for the service account of namespace %s: %w", name, err)
	}
	return nil
}

// readLines reads a file with one JSON value per line. It ignores an incomplete last line.
func readLines[T any](dir, name string) ([]T, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	var all []T
	for line := range bytes.Lines(data) {
		var one T
		if err := json.Unmarshal(line, &one); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if extra := len(t.last) - most; extra > 0 {
		t.last = t.last[extra:]
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.last))
}
