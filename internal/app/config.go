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

// Mode says whether the function carries out its plans.
type Mode string

const (
	Observe Mode = "observe" // report the plan and change nothing
	Act     Mode = "act"
)

// Authentication methods, and locations of tokens, certificates and keys.
const (
	byIAM          = "iam"
	byKubeconfig   = "kubeconfig"
	inFile         = "file"
	inParameter    = "ssm"
	inSecret       = "secretsmanager"
	inVariable     = "" // in the setting itself
	tokenKey       = "token"
	caKey          = "ca"
	loginWays      = "iam or iam:<cluster ID> (aws-iam-authenticator), secretsmanager:<secret>, ssm:<parameter> or file:<path> (ServiceAccount token), or kubeconfig:<path>"
	internalPrefix = "api.internal."
)

// location is where a token, CA bundle or key is stored.
type location struct{ in, name string }

// Config is the validated configuration.
type Config struct {
	Cluster string
	Mode    Mode
	Server  string // empty with a kubeconfig

	Policy spot.Policy

	login  location // the method, and its cluster ID, path or secret
	ca     location // empty for the system's root certificates
	castai autoscaler
}

// ParseConfig reads the settings from environ, which has the form of os.Environ. Its error has one line for each
// missing, invalid or unknown setting.
func ParseConfig(environ []string) (Config, error) {
	env, errs := environment(environ)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := Config{Cluster: env[envCluster], Mode: Mode(env[envMode]), Server: env[envServer]}
	switch {
	case c.Cluster == "":
		bad("%s: set it to the name of the kOps cluster, such as prod.example.com", envCluster)
	case !strings.Contains(c.Cluster, ".") || strings.ContainsAny(c.Cluster, "/: "):
		bad("%s: %q is not the name of a kOps cluster: use a DNS name, such as prod.example.com", envCluster, c.Cluster)
	}
	if c.Mode != Observe && c.Mode != Act {
		bad("%s: set it to observe (report the plan and change nothing) or act (carry out the plan), not %q", envMode, c.Mode)
	}
	c.login.in, c.login.name, _ = strings.Cut(env[envLogin], ":")
	switch c.login.in {
	case byIAM:
		if c.login.name == "" {
			c.login.name = c.Cluster // kOps uses the cluster's name as the authenticator's cluster ID
		}
		errs = append(errs, c.parseEndpoint(env[envCA])...)
	case inSecret, inParameter, inFile:
		if c.login.name == "" {
			bad("%s: add a name after %s:", envLogin, c.login.in)
		}
		errs = append(errs, c.parseEndpoint(env[envCA])...)
	case byKubeconfig:
		if c.login.name == "" {
			bad("%s: add a path after kubeconfig:", envLogin)
		}
		for _, name := range []string{envServer, envCA} {
			if env[name] != "" {
				bad("%s: remove it: with %s=kubeconfig:<path>, the kubeconfig is used", name, envLogin)
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

// parseEndpoint reads the settings of the API server's endpoint and sets defaults.
func (c *Config) parseEndpoint(ca string) (errs []error) {
	if u, err := url.Parse(c.Server); err != nil || u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("%s: set it to the API server's URL, such as https://api.%s, not %q", envServer, c.Cluster, c.Server))
	}
	switch in, name, _ := strings.Cut(ca, ":"); in {
	case inSecret, inParameter, inFile:
		c.ca = location{in, name}
		if name == "" {
			errs = append(errs, fmt.Errorf("%s: add a name after %s: (%s:<name>)", envCA, in, in))
		}
	default:
		pem, err := parseCA(ca)
		if err != nil {
			errs = append(errs, err)
		}
		c.ca = location{inVariable, pem}
	}
	return errs
}

// parseCA reads a CA bundle in PEM, or PEM in base64 as in a kubeconfig.
func parseCA(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	pem := value
	if !strings.HasPrefix(value, "-----BEGIN") {
		decoded, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return "", fmt.Errorf("%s: set it to CA certificates (PEM or PEM in base64) or their location "+
				"(secretsmanager:<secret>, ssm:<parameter> or file:<path>): %w", envCA, err)
		}
		pem = string(decoded)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
		return "", fmt.Errorf("%s: no certificate found: use certificate-authority-data from the cluster's kubeconfig", envCA)
	}
	return pem, nil
}
