package kube

import (
	"errors"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Kubeconfig is the log-in of a person at a terminal, as kubectl finds it.
type Kubeconfig struct {
	File    string   // the one that is named; empty:
	Files   []string // those there may be, the earlier before the later
	Context string   // empty: the current one
}

// Context is what a kubeconfig calls a context and the cluster in it.
type Context struct{ Name, Cluster string }

// LogIn logs in as the context says. It makes no request.
func (k Kubeconfig) LogIn(userAgent string) (*rest.Config, Context, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: k.File, Precedence: k.Files}
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.Context})
	raw, err := config.RawConfig()
	if err != nil {
		return nil, Context{}, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	in := Context{Name: raw.CurrentContext}
	if k.Context != "" {
		in.Name = k.Context
	}
	if context := raw.Contexts[in.Name]; context != nil {
		in.Cluster = context.Cluster
	}
	cfg, err := config.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, in, errors.New("there is no kubeconfig to log in with: name one with --kubeconfig or KUBECONFIG; " +
			"kops export kubeconfig writes one")
	case err != nil:
		return nil, in, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	cfg.UserAgent = userAgent
	cfg.Dial = dialer().DialContext
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &explaining{next: next} })
	return cfg, in, nil
}
