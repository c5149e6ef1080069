package app

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// Mode is whether the function acts on what it decides.
type Mode string

const (
	Observe Mode = "observe" // change nothing, tell the plan
	Act     Mode = "act"
)

// The ways to log in, and the places a text can be in.
const (
	byIAM          = "iam"
	byKubeconfig   = "kubeconfig"
	inFile         = "file"
	inParameter    = "ssm"
	inSecret       = "secretsmanager"
	inVariable     = "" // the setting itself
	tokenKey       = "token"
	caKey          = "ca"
	loginWays      = "iam or iam:<cluster id> (aws-iam-authenticator), secretsmanager:<secret>, ssm:<parameter> or file:<path> (a ServiceAccount's token), or kubeconfig:<path>"
	internalPrefix = "api.internal."
)

// place is where a text is: a token, a CA bundle.
type place struct{ in, name string }

// Config is the validated environment.
type Config struct {
	Cluster       string
	Mode          Mode
	Server        string // empty with a kubeconfig, which says it
	TLSServerName string

	Policy spot.Policy

	login  place // how, and with what: a cluster id, a path, a secret
	ca     place // empty for the system's roots
	castai autoscaler
}

// ParseConfig reads the settings of an environment in the form of os.Environ. Its error joins one line for each setting
// that is missing, malformed or unknown.
func ParseConfig(environ []string) (Config, error) {
	env, errs := environment(environ)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := Config{Cluster: env[envCluster], Mode: Mode(env[envMode]), Server: env[envServer], TLSServerName: env[envTLSServerName]}
	switch {
	case c.Cluster == "":
		bad("%s: set it to the kOps cluster's name, such as prod.example.com", envCluster)
	case !strings.Contains(c.Cluster, ".") || strings.ContainsAny(c.Cluster, "/: "):
		bad("%s: %q is no kOps cluster name: it is a DNS name, such as prod.example.com", envCluster, c.Cluster)
	}
	if c.Mode != Observe && c.Mode != Act {
		bad("%s: set it to observe (tell what would be done) or act (do it), not %q", envMode, c.Mode)
	}
	c.login.in, c.login.name, _ = strings.Cut(env[envLogin], ":")
	switch c.login.in {
	case byIAM:
		if c.login.name == "" {
			c.login.name = c.Cluster // what kOps calls the cluster in the authenticator's configuration
		}
		errs = append(errs, c.parseEndpoint(env[envCA])...)
	case inSecret, inParameter, inFile:
		if c.login.name == "" {
			bad("%s: %s: is to be followed by a name", envLogin, c.login.in)
		}
		errs = append(errs, c.parseEndpoint(env[envCA])...)
	case byKubeconfig:
		if c.login.name == "" {
			bad("%s: kubeconfig: is to be followed by a path", envLogin)
		}
		for _, name := range []string{envServer, envCA, envTLSServerName} {
			if env[name] != "" {
				bad("%s: take it away: with %s=kubeconfig:… the kubeconfig says it", name, envLogin)
			}
		}
	default:
		bad("%s: set it to %s", envLogin, loginWays)
	}
	errs = append(errs, c.readPolicy(env)...)
	if len(errs) > 0 {
		return Config{}, fmt.Errorf("reading the configuration: %w", errors.Join(errs...))
	}
	return c, nil
}

// parseEndpoint checks the settings that say where the API server is, and fills in what they leave out.
func (c *Config) parseEndpoint(ca string) (errs []error) {
	if u, err := url.Parse(c.Server); err != nil || u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("%s: set it to the API server's URL, such as https://api.%s, not %q", envServer, c.Cluster, c.Server))
	}
	switch in, name, _ := strings.Cut(ca, ":"); in {
	case inSecret, inParameter, inFile:
		c.ca = place{in, name}
		if name == "" {
			errs = append(errs, fmt.Errorf("%s: %s: is to be followed by a name", envCA, in))
		}
	default:
		pem, err := parseCA(ca)
		if err != nil {
			errs = append(errs, err)
		}
		c.ca = place{inVariable, pem}
	}
	// kOps puts this name into every API server's certificate, whatever the load balancer in front is called. A public
	// certificate, which needs no CA of ours, has the host's name.
	if c.TLSServerName == "" && c.ca != (place{}) {
		c.TLSServerName = internalPrefix + c.Cluster
	}
	return errs
}

// parseCA reads a CA bundle: PEM as it is, or in base64 as in a kubeconfig's certificate-authority-data.
func parseCA(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	pem := value
	if !strings.HasPrefix(value, "-----BEGIN") {
		decoded, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return "", fmt.Errorf("%s: set it to the cluster's CA certificates as PEM, as PEM in base64, or to where they are: "+
				"secretsmanager:<secret>, ssm:<parameter> or file:<path>: %w", envCA, err)
		}
		pem = string(decoded)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
		return "", fmt.Errorf("%s: there is no certificate in it; take certificate-authority-data of the cluster's kubeconfig", envCA)
	}
	return pem, nil
}
