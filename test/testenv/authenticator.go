package testenv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/castai/kops-spot/test/authenticator/protocol"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
)

// Backend modes of the authenticator: the values of kOps' spec.authentication.aws.backendMode.
const (
	MountedFile  = protocol.MountedFile  // AuthenticatorOptions.Mappings, until it is restarted
	EKSConfigMap = protocol.EKSConfigMap // the ConfigMap kube-system/aws-auth, live
	CRD          = protocol.CRD          // objects of kind IAMIdentityMapping, live
)

// Mapping maps an IAM role or user to a Kubernetes user and groups.
type Mapping = protocol.Mapping

// AuthenticatorOptions configure an authenticator.
type AuthenticatorOptions struct {
	ClusterID string // must match the tokens; kOps uses the cluster's name
	// Mode is one of the above, or several with commas between. Empty is MountedFile.
	Mode       string
	Mappings   []Mapping          // for MountedFile
	Identities []fakests.Identity // known to STS
	// Kubeconfig is for the cluster that the other modes read.
	Kubeconfig string
	// Dir has the authenticator's files, including authenticator.log. It is created if necessary and kept. Empty is a
	// temporary directory that Stop removes.
	Dir string
	// Log receives the progress of a long build. May be nil.
	Log io.Writer
}

func (o AuthenticatorOptions) modes() []string {
	return strings.Split(cmp.Or(o.Mode, MountedFile), ",")
}

// Authenticator is the unmodified server of aws-iam-authenticator, with a fake STS. It stops with Stop or when this
// process exits.
type Authenticator struct {
	opts    AuthenticatorOptions
	program string
	tempDir string // to be removed; empty when the caller chose the directory
	log     *os.File

	sts      *fakests.Server
	endpoint *fakests.Endpoint

	ready   protocol.Ready
	process *process
	stop    func() error
}

// startAuthenticator builds the authenticator if necessary, which takes a minute the first time, starts it and returns
// when it accepts tokens. Its apiServerFlags are for the control plane, which is started after it.
func startAuthenticator(ctx context.Context, opts AuthenticatorOptions) (*Authenticator, error) {
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	program, err := BuildAuthenticator(ctx, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("building the authenticator: %w", err)
	}
	a := &Authenticator{opts: opts, program: program, sts: fakests.New(opts.Identities...)}
	a.stop = sync.OnceValue(a.end)
	if err := a.prepare(); err != nil {
		_ = a.Stop() // the first error says more
		return nil, fmt.Errorf("starting the authenticator: %w", err)
	}
	if err := a.start(ctx); err != nil {
		_ = a.Stop() // the first error says more
		return nil, fmt.Errorf("starting the authenticator: %w", err)
	}
	return a, nil
}

// StartWithAuthenticator starts a control plane that authenticates users through an authenticator. The authenticator
// creates the keys for the API server at its first start, so modes that read the API server require Restart.
func StartWithAuthenticator(ctx context.Context, opts Options, auth AuthenticatorOptions) (*ControlPlane,
	*Authenticator, error) {
	a, err := startAuthenticator(ctx, auth)
	if err != nil {
		return nil, nil, err
	}
	opts.APIServerFlags = append(a.apiServerFlags(), opts.APIServerFlags...)
	cp, err := StartControlPlane(ctx, opts)
	if err != nil {
		return nil, nil, errors.Join(err, a.Stop())
	}
	return cp, a, nil
}

// prepare creates what survives a restart of the program.
func (a *Authenticator) prepare() error {
	var err error
	if a.opts.Dir == "" {
		if a.tempDir, err = os.MkdirTemp("", "authenticator-"); err != nil {
			return err
		}
		a.opts.Dir = a.tempDir
	}
	if err := os.MkdirAll(a.opts.Dir, 0o700); err != nil {
		return err
	}
	if a.log, err = os.OpenFile(filepath.Join(a.opts.Dir, "authenticator.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND,
		0o600); err != nil {
		return err
	}
	a.endpoint, err = a.sts.Listen()
	return err
}

func (a *Authenticator) start(ctx context.Context) error {
	text, err := json.Marshal(protocol.Config{
		Dir:        a.opts.Dir,
		Port:       a.ready.Port,
		ClusterID:  a.opts.ClusterID,
		Modes:      a.opts.modes(),
		Mappings:   a.opts.Mappings,
		Kubeconfig: a.opts.Kubeconfig,
		STSAddress: a.endpoint.TLSAddress,
		STSRoots:   string(a.endpoint.CA),
	})
	if err != nil {
		return err
	}
	file := filepath.Join(a.opts.Dir, "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	a.process, err = startProcess(ctx, "authenticator", a.program, a.log, &a.ready, "-until-stdin-closes", "-config",
		file)
	return err
}

// Restart restarts the authenticator with changed options, as a rollout of its DaemonSet does. Its address, keys and
// STS stay the same, and so must Dir, Identities and Log.
func (a *Authenticator) Restart(ctx context.Context, change func(*AuthenticatorOptions)) error {
	if a.process != nil { // nil if an earlier restart failed
		if err := a.process.stop(); err != nil {
			return fmt.Errorf("stopping the authenticator: %w", err)
		}
	}
	opts := a.opts
	change(&opts)
	opts.Dir, opts.Identities, opts.Log = a.opts.Dir, a.opts.Identities, a.opts.Log
	a.opts = opts
	if err := a.start(ctx); err != nil {
		return fmt.Errorf("starting the authenticator again: %w", err)
	}
	return nil
}

// Stop stops the authenticator and its STS. It returns an error if the authenticator had failed before. Later calls
// return the result of the first.
func (a *Authenticator) Stop() error { return a.stop() }

func (a *Authenticator) end() error {
	if a.tempDir != "" {
		defer os.RemoveAll(a.tempDir)
	}
	if a.log != nil {
		defer a.log.Close()
	}
	if a.endpoint != nil {
		defer a.endpoint.Close()
	}
	if a.process == nil {
		return nil
	}
	return a.process.stop()
}

// apiServerFlags returns the flags that make kube-apiserver use the authenticator.
func (a *Authenticator) apiServerFlags() []string {
	return []string{
		"--authentication-token-webhook-config-file=" + a.ready.Kubeconfig,
		// The only version that the authenticator supports.
		"--authentication-token-webhook-version=v1beta1",
	}
}

// STS returns the STS that the authenticator uses.
func (a *Authenticator) STS() *fakests.Server { return a.sts }

// STSURL returns the plain HTTP URL of STS, for AWS_ENDPOINT_URL_STS.
func (a *Authenticator) STSURL() string { return a.endpoint.URL }

// MappingsCRD is a minimal version of the manifest that kOps installs with the authenticator
// (https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.5/deploy/iamidentitymapping.yaml).
const MappingsCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: iamidentitymappings.iamauthenticator.k8s.aws
spec:
  group: iamauthenticator.k8s.aws
  scope: Cluster
  names: {kind: IAMIdentityMapping, plural: iamidentitymappings, singular: iamidentitymapping}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [arn, username]
              properties:
                arn: {type: string}
                username: {type: string}
                groups: {type: array, items: {type: string}}
            status:
              type: object
              properties:
                canonicalARN: {type: string}
                userID: {type: string}
`
