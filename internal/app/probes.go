package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
)

const (
	// retryFor is how long to retry a failed probe, as for an interruption: an authenticator that AWS throttles rejects
	// valid credentials too.
	retryFor      = 6 * time.Second
	retryInterval = 2 * time.Second

	// parallelProbes limits the number of parallel probes.
	parallelProbes = 6
)

// probe is one request of the self-check, with advice for when it fails.
type probe struct {
	name, advice string
	try          func(context.Context) (detail string, err error)
	noResponse   string // the advice if AWS does not respond; empty for the other one
}

// ask runs the probe until it succeeds or has failed for retryFor.
func (p probe) ask(ctx context.Context) Check {
	for began := time.Now(); ; {
		detail, err := p.try(ctx)
		if err == nil {
			return Check{Name: p.name, OK: true, Detail: detail}
		}
		if time.Since(began) < retryFor {
			select {
			case <-time.After(retryInterval):
				continue
			case <-ctx.Done():
			}
		}
		advice := p.advice
		if p.noResponse != "" && errors.Is(err, aws.ErrNoResponse) {
			advice = p.noResponse
		}
		return Check{Name: p.name, Detail: err.Error(), Advice: advice}
	}
}

// askAll runs the probes in parallel. It returns when ctx ends, even if probes are still running.
func askAll(ctx context.Context, probes []probe) []Check {
	type response struct {
		i int
		Check
	}
	checks, responses := make([]Check, len(probes)), make(chan response, len(probes))
	slots := make(chan struct{}, parallelProbes)
	for i, p := range probes {
		checks[i] = Check{Name: p.name, Detail: "timed out", Advice: p.advice}
		go func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				responses <- response{i, p.ask(ctx)}
			case <-ctx.Done():
			}
		}()
	}
	for range probes {
		select {
		case a := <-responses:
			checks[a.i] = a.Check
		case <-ctx.Done():
			return checks
		}
	}
	return checks
}

// noInstance is the name of a node that does not exist. Reading it proves that authentication works.
const noInstance = "i-00000000000000000"

func (s selfChecker) logIn() probe {
	return probe{name: "authentication", advice: "see the detail for the cause; if the request timed out, allow the function to connect to " + envServer +
		": compare its subnets and security groups with kubernetesApiAccess in the kOps cluster",
		try: func(ctx context.Context) (string, error) {
			_, err := s.cluster.NodeNamed(ctx, noInstance)
			if err != nil && !errors.Is(err, spot.ErrNotFound) && !apierrors.IsForbidden(err) { // Forbidden proves authentication too
				return "", err
			}
			return "the API server accepts the function's credentials", nil
		}}
}

// network distinguishes a connection that fails from rejected credentials.
func (s selfChecker) network() []probe {
	if s.reach == nil {
		return nil
	}
	return []probe{{name: "network", advice: "allow the function to connect to " + envServer + ": compare its subnets and security groups with " +
		"kubernetesApiAccess in the kOps cluster, and check the setting; with a proxy, allow it there",
		try: func(ctx context.Context) (string, error) { return "the API server is reachable", s.reach(ctx) }}}
}

func (s selfChecker) aws() probe {
	route := noRoute("ec2", "autoscaling")
	return probe{name: "aws", noResponse: route,
		advice: "allow the function's role the actions in iam/handler.json; if the request timed out, " + route,
		try: func(ctx context.Context) (string, error) {
			return "EC2 and Auto Scaling are readable", s.cloud.Readable(ctx, s.cfg.Cluster)
		}}
}

// noRoute is the advice if AWS services do not respond.
func noRoute(services ...string) string {
	return "allow the function to connect to " + strings.Join(services, " and ") + ": from a private subnet, that requires a NAT gateway, an interface " +
		"endpoint of each with private DNS, which the function's security groups may reach on port 443, or a proxy"
}

// autoscaler checks that CAST AI is reachable and accepts the key. It has no interface endpoint.
func (s selfChecker) autoscaler() []probe {
	if s.castai == nil {
		return nil
	}
	return []probe{{name: "castai",
		advice: "see the detail for the cause; if there was no response, allow the function to connect to CAST AI: from a private " +
			"subnet, that requires a NAT gateway or a proxy",
		try:        func(ctx context.Context) (string, error) { return "CAST AI accepts the key", s.castai(ctx) },
		noResponse: `see "` + castaiKeyCheck + `"`}}
}

// permissions checks every RBAC permission that the function needs, including Karpenter's where the policy uses it.
func (s selfChecker) permissions() (probes []probe) {
	for _, r := range kube.Requests() {
		if r.Group == "karpenter.sh" && s.cfg.Policy.Replace != spot.ReplacerKarpenter {
			continue
		}
		what := strings.TrimSuffix(r.Resource+"/"+r.Subresource, "/")
		if r.Group != "" {
			what += "." + r.Group
		}
		probes = append(probes, probe{name: "rbac: " + r.Verb + " " + what,
			advice: "apply deploy/" + r.Manifest + ", and check that its bindings name the function's user",
			try: func(ctx context.Context) (string, error) {
				allowed, reason, err := s.cluster.Allowed(ctx, r.Verb, r.Group, r.Resource, r.Subresource)
				switch {
				case err != nil:
					return "", err
				case !allowed && reason != "":
					return "", fmt.Errorf("%s is not allowed: %s", r.For, reason)
				case !allowed:
					return "", fmt.Errorf("%s is not allowed", r.For)
				}
				return r.For, nil
			}})
	}
	return probes
}

// Names of the checks of texts.
const (
	tokenCheck     = "token"
	caCheck        = "ca"
	castaiKeyCheck = "castai key"
)

// text is a token, certificate or key that is read from its location.
type text struct {
	what, setting string
	in            string // where: inSecret, inParameter or inFile
	read          kube.Source
	check         func(string) error
}

// texts returns the texts in the configuration.
func (c Config) texts(cloud *aws.Cloud) (texts []text) {
	add := func(what, setting string, p location, key string, check func(string) error) {
		if slices.Contains([]string{inSecret, inParameter, inFile}, p.in) {
			texts = append(texts, text{what, setting, p.in, source(cloud, p, key), check})
		}
	}
	add(tokenCheck, envLogin, c.login, tokenKey, notEmpty)
	add(caCheck, envCA, c.ca, caKey, hasCertificate)
	add(castaiKeyCheck, envCASTAIKey, c.castai.key, castaiKey, notEmpty)
	return texts
}

func (s selfChecker) readTexts() (probes []probe) {
	for _, t := range s.texts {
		probes = append(probes, probe{name: t.what, noResponse: noRoute(t.in),
			advice: "store it at the location in " + t.setting + ", and allow the function to read it",
			try: func(ctx context.Context) (string, error) {
				value, err := t.read(ctx)
				if err != nil {
					return "", err
				}
				return "readable", t.check(value)
			}})
	}
	return probes
}

func notEmpty(value string) error {
	if strings.TrimSpace(value) == "" {
		return errors.New("it is empty")
	}
	return nil
}

func hasCertificate(value string) error {
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(value)) {
		return errors.New("no certificate found")
	}
	return nil
}
