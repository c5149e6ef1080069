package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	clientset "k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// apiServer is a kube-apiserver in this process. Only one is possible: its feature gates, metrics and logs are global.
type apiServer struct {
	url    string
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has stopped; err has the reason
	err    error
}

// startAPIServer starts kube-apiserver on listener with RBAC. extra flags override its own. It returns before the
// server is ready.
func startAPIServer(listener net.Listener, dir, etcd string, creds *credentials, logs io.Writer,
	extra []string) (*apiServer, error) {
	policy := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy()), 0o600); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	const issuer = "https://kubernetes.default.svc"
	flags := append([]string{
		"--etcd-servers=" + etcd,
		"--advertise-address=127.0.0.1",
		// The endpoint reconciler rejects a loopback address and stops the server.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file=" + creds.servingCertFile,
		"--tls-private-key-file=" + creds.servingKeyFile,
		"--token-auth-file=" + creds.tokensFile,
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + creds.serviceKeyFile,
		"--service-account-signing-key-file=" + creds.serviceKeyFile,
		"--audit-policy-file=" + policy,
		"--audit-log-path=" + filepath.Join(dir, protocol.AuditLogFile),
		// By default, the log is rotated at 100 MB, and a test would count only the later requests.
		"--audit-log-maxsize=100000",
	}, extra...)

	opts := options.NewServerRunOptions()
	opts.SecureServing.Listener = listener
	opts.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	opts.SecureServing.BindAddress = net.IPv4(127, 0, 0, 1)
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, named := range opts.Flags().FlagSets {
		fs.AddFlagSet(named)
	}
	if err := fs.Parse(flags); err != nil {
		return nil, fmt.Errorf("reading kube-apiserver's flags: %w", err)
	}
	registry := opts.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return nil, fmt.Errorf("setting feature gates: %w", err)
	}
	gates := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	streams := &logsapi.LoggingOptions{ErrorStream: logs, InfoStream: logs}
	if err := logsapi.ValidateAndApplyWithOptions(opts.Logs, streams, gates); err != nil {
		return nil, fmt.Errorf("setting up logs: %w", err)
	}
	// The server's own clients would print API warnings to standard error.
	restclient.SetDefaultWarningHandler(restclient.NoWarnings{})

	ctx, cancel := context.WithCancel(context.Background())
	s := &apiServer{url: "https://" + listener.Addr().String(), cancel: cancel, ended: make(chan struct{})}
	serve, err := prepareAPIServer(ctx, opts)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("preparing kube-apiserver: %w", err)
	}
	go func() {
		defer close(s.ended)
		s.err = serve(ctx)
	}()
	return s, nil
}

// prepareAPIServer replaces the part of kube-apiserver's command between reading flags and serving. The command itself
// would handle the process's signals and, at the end, wait a minute for open watches.
func prepareAPIServer(ctx context.Context, opts *options.ServerRunOptions) (serve func(context.Context) error,
	err error) {
	completed, err := opts.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	completedConfig, err := config.Complete()
	if err != nil {
		return nil, err
	}
	chain, err := app.CreateServerChain(completedConfig)
	if err != nil {
		return nil, err
	}
	chain.GenericAPIServer.ShutdownTimeout = time.Second
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, err
	}
	return prepared.Run, nil
}

// waitReady waits until the server is ready, including RBAC's bootstrap roles and priority levels.
func (s *apiServer) waitReady(ctx context.Context, client clientset.Interface) error {
	err := poll(ctx, func() bool {
		select {
		case <-s.ended:
			return true
		default:
		}
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil
	})
	select {
	case <-s.ended:
		return fmt.Errorf("starting kube-apiserver: %w", s.cause())
	default:
	}
	if err != nil {
		return fmt.Errorf("waiting for kube-apiserver: %w", err)
	}
	return nil
}

// cause returns the reason why the server stopped. Call it only after ended is closed.
func (s *apiServer) cause() error {
	if s.err != nil {
		return s.err
	}
	return errors.New("it ended by itself")
}

// stop stops the server and waits up to three seconds. Its state is not needed afterwards.
func (s *apiServer) stop() {
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(3 * time.Second):
	}
}

// auditPolicy logs each request and its response, except for the control plane's own. A request is logged when it has
// been answered, a watch also when it begins.
func auditPolicy() string {
	own := []string{"system:apiserver", controllersUser, schedulerUser, kubeletUser, attacherUser}
	return fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["%s"]
- level: Metadata
`, strings.Join(own, `", "`))
}
