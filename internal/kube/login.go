package kube

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// dialLimit bounds the opening of one connection, so that an address that swallows packets leaves time for another try.
const dialLimit = 3 * time.Second

// Endpoint is where a cluster's API server is and how it proves that it is the one.
type Endpoint struct {
	Server        string // https://host[:port]
	CA            []byte // PEM bundle; empty for the system's roots, as for a load balancer with a public certificate
	TLSServerName string // the name in the certificate, where it is not the host's
}

// WithTokenFile logs in with the bearer token in a file, such as a ServiceAccount's. The file is read again as it
// changes, about once a minute.
func WithTokenFile(e Endpoint, path, userAgent string) (*rest.Config, error) {
	token, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the token to log in with: %w", err)
	}
	if strings.TrimSpace(string(token)) == "" {
		return nil, fmt.Errorf("reading the token to log in with: %s is empty", path)
	}
	return dialing(&rest.Config{
		Host:            e.Server,
		BearerTokenFile: path,
		UserAgent:       userAgent,
		TLSClientConfig: rest.TLSClientConfig{CAData: e.CA, ServerName: e.TLSServerName},
	}), nil
}

// FromKubeconfig logs in as the current context of a kubeconfig file says.
func FromKubeconfig(path, userAgent string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig to log in with: %w", err)
	}
	cfg.UserAgent = userAgent
	return dialing(cfg), nil
}

func dialing(cfg *rest.Config) *rest.Config {
	cfg.Dial = (&net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}).DialContext
	return cfg
}
