// Package app makes the production handler of the environment's settings.
package app

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/kube"
)

// The settings, all of them. README.md has the same table in words.
const (
	envCluster       = "KOPS_SPOT_CLUSTER"
	envMode          = "KOPS_SPOT_MODE"
	envLogin         = "KOPS_SPOT_LOGIN"
	envServer        = "KOPS_SPOT_SERVER"
	envCA            = "KOPS_SPOT_CA"
	envTLSServerName = "KOPS_SPOT_TLS_SERVER_NAME"

	prefix = "KOPS_SPOT_"
)

var settings = []string{envCluster, envMode, envLogin, envServer, envCA, envTLSServerName}

// Mode is whether the function acts on what it decides.
type Mode string

const (
	Observe Mode = "observe" // change nothing, tell the plan
	Act     Mode = "act"
)

// Config is the validated environment.
type Config struct {
	Cluster  string
	Mode     Mode
	Endpoint kube.Endpoint

	tokenFile, kubeconfig string // where to log in with; just one is set
}

// Login is the log-in that the configuration names. Its error says what to do.
func (c Config) Login(userAgent string) (*rest.Config, error) {
	if c.kubeconfig != "" {
		return kube.FromKubeconfig(c.kubeconfig, userAgent)
	}
	return kube.WithTokenFile(c.Endpoint, c.tokenFile, userAgent)
}

// ParseConfig reads the settings of an environment in the form of os.Environ. Its error joins one line for each setting
// that is missing, malformed or unknown.
func ParseConfig(environ []string) (Config, error) {
	env := map[string]string{}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains(settings, name):
			env[name] = strings.TrimSpace(value)
		case strings.HasPrefix(name, prefix):
			bad("%s: there is no such setting; there are %s", name, strings.Join(settings, ", "))
		}
	}
	c := Config{Cluster: env[envCluster], Mode: Mode(env[envMode])}
	switch {
	case c.Cluster == "":
		bad("%s: set it to the kOps cluster's name, such as prod.example.com", envCluster)
	case !strings.Contains(c.Cluster, ".") || strings.ContainsAny(c.Cluster, "/: "):
		bad("%s: %q is no kOps cluster name: it is a DNS name, such as prod.example.com", envCluster, c.Cluster)
	}
	if c.Mode != Observe && c.Mode != Act {
		bad("%s: set it to observe (tell what would be done) or act (do it), not %q", envMode, c.Mode)
	}
	kind, path, _ := strings.Cut(env[envLogin], ":")
	switch {
	case kind == "token-file" && path != "":
		c.tokenFile = path
		var err error
		if c.Endpoint, err = parseEndpoint(env, c.Cluster); err != nil {
			errs = append(errs, err)
		}
	case kind == "kubeconfig" && path != "":
		c.kubeconfig = path
		for _, name := range []string{envServer, envCA, envTLSServerName} {
			if env[name] != "" {
				bad("%s: take it away: with %s=kubeconfig:… the kubeconfig says it", name, envLogin)
			}
		}
	default:
		bad("%s: set it to token-file:<path> (a ServiceAccount's token) or kubeconfig:<path>", envLogin)
	}
	if len(errs) > 0 {
		return Config{}, fmt.Errorf("reading the configuration: %w", errors.Join(errs...))
	}
	return c, nil
}

func parseEndpoint(env map[string]string, cluster string) (kube.Endpoint, error) {
	var errs []error
	e := kube.Endpoint{Server: env[envServer], TLSServerName: env[envTLSServerName]}
	if u, err := url.Parse(e.Server); err != nil || u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("%s: set it to the API server's URL, such as https://api.%s, not %q", envServer, cluster, e.Server))
	}
	var err error
	if e.CA, err = parseCA(env[envCA]); err != nil {
		errs = append(errs, err)
	}
	// kOps puts this name into every API server's certificate, whatever the load balancer in front is called. A public
	// certificate, which needs no CA of ours, has the host's name.
	if e.TLSServerName == "" && len(e.CA) > 0 {
		e.TLSServerName = "api.internal." + cluster
	}
	return e, errors.Join(errs...)
}

// parseCA reads a CA bundle: PEM as it is, or in base64 as in a kubeconfig's certificate-authority-data.
func parseCA(value string) ([]byte, error) {
	if value == "" {
		return nil, nil
	}
	pem := []byte(value)
	if !strings.HasPrefix(value, "-----BEGIN") {
		decoded, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, fmt.Errorf("%s: set it to the cluster's CA certificates as PEM, or as PEM in base64: %w", envCA, err)
		}
		pem = decoded
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no certificate in it; take certificate-authority-data of the cluster's kubeconfig", envCA)
	}
	return pem, nil
}
