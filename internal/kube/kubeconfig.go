package kube

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Kubeconfig selects a user's credentials, by kubectl's rules.
type Kubeconfig struct {
	File    string   // explicit path; takes precedence over Files
	Files   []string // merged, the first one wins
	Context string   // empty for the current context
}

// Context holds the names of a context and its cluster.
type Context struct{ Name, Cluster string }

// Contexts returns the names of the contexts; none if the files cannot be read.
func (k Kubeconfig) Contexts() []string {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: k.File, Precedence: k.Files}
	raw, err := rules.Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}

// LogIn returns the context's client configuration without sending a request.
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
		return nil, in, errors.New("no kubeconfig found: set --kubeconfig or KUBECONFIG; " +
			"kops export kubeconfig creates one")
	case err != nil:
		return nil, in, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	cfg.UserAgent = userAgent
	cfg.Dial = dialer().DialContext
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &authErrorTransport{next: next} })
	return cfg, in, nil
}
