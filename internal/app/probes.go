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
	// believedAfter is how long a failure has to last to be believed, as when an interruption is handled: an authenticator
	// that AWS throttles refuses good credentials too.
	believedAfter = 6 * time.Second
	askAgainAfter = 2 * time.Second

	// probesAtOnce is how many questions are under way at once.
	probesAtOnce = 6
)

// probe is one question to the world, and what to do if the answer is not as it should be.
type probe struct {
	name, advice string
	try          func(context.Context) (detail string, err error)
}

// ask asks until the answer is good or has been bad for long enough.
func (p probe) ask(ctx context.Context) Check {
	for began := time.Now(); ; {
		detail, err := p.try(ctx)
		if err == nil {
			return Check{Name: p.name, OK: true, Detail: detail}
		}
		if time.Since(began) < believedAfter {
			select {
			case <-time.After(askAgainAfter):
				continue
			case <-ctx.Done():
			}
		}
		return Check{Name: p.name, Detail: err.Error(), Advice: p.advice}
	}
}

// askAll asks them side by side. It returns when ctx ends, whether they have been answered or not.
func askAll(ctx context.Context, probes []probe) []Check {
	type answer struct {
		i int
		Check
	}
	checks, answers := make([]Check, len(probes)), make(chan answer, len(probes))
	slots := make(chan struct{}, probesAtOnce)
	for i, p := range probes {
		checks[i] = Check{Name: p.name, Detail: "there was no answer in time", Advice: p.advice}
		go func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				answers <- answer{i, p.ask(ctx)}
			case <-ctx.Done():
			}
		}()
	}
	for range probes {
		select {
		case a := <-answers:
			checks[a.i] = a.Check
		case <-ctx.Done():
			return checks
		}
	}
	return checks
}

// noInstance is the name of a node that does not exist: to look for it is to log in, and costs nothing.
const noInstance = "i-00000000000000000"

func (s selfChecker) logIn() probe {
	return probe{"log-in", "the detail says what is wrong with the log-in; if nothing answers, let the function reach " + envServer +
		": compare its subnets and security groups with who may reach the API's load balancer (kubernetesApiAccess in the kOps cluster)",
		func(ctx context.Context) (string, error) {
			_, err := s.cluster.NodeNamed(ctx, noInstance)
			if err != nil && !errors.Is(err, spot.ErrNotFound) && !apierrors.IsForbidden(err) { // who is told no is logged in
				return "", err
			}
			return "the API server accepts it", nil
		}}
}

// network tells a way that is closed from a log-in that is refused.
func (s selfChecker) network() []probe {
	if s.reach == nil {
		return nil
	}
	return []probe{{"network", "let the function reach " + envServer + ": compare its subnets and security groups with who may reach the API's load balancer " +
		"(kubernetesApiAccess in the kOps cluster), and the setting with where the API server is",
		func(ctx context.Context) (string, error) { return "there is a way to the API server", s.reach(ctx) }}}
}

func (s selfChecker) aws() probe {
	return probe{"aws", "allow the function's role what iam/handler.json says; if nothing answers, give the function a way to EC2 and Auto Scaling: " +
		"out of a VPC's private subnet that is a NAT gateway or an interface endpoint for each",
		func(ctx context.Context) (string, error) {
			return "EC2 and Auto Scaling can be read", s.cloud.Readable(ctx, s.cfg.Cluster)
		}}
}

// rights are what the function has to be allowed in the cluster. What only Karpenter's replacement needs is asked where the
// policy names it.
func (s selfChecker) rights() (probes []probe) {
	for _, r := range kube.Requests() {
		if r.Group == "karpenter.sh" && s.cfg.Policy.Replace != spot.ReplacerKarpenter {
			continue
		}
		what := strings.TrimSuffix(r.Resource+"/"+r.Subresource, "/")
		if r.Group != "" {
			what += "." + r.Group
		}
		probes = append(probes, probe{"rbac: " + r.Verb + " " + what, "apply deploy/" + r.Manifest + ", and log in as a subject that it binds",
			func(ctx context.Context) (string, error) {
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

// text is something that is kept elsewhere, and read when it is needed.
type text struct {
	what, setting string
	read          kube.Source
	check         func(string) error
}

// texts are those that the configuration names.
func (c Config) texts(cloud *aws.Cloud) (texts []text) {
	add := func(what, setting string, p place, key string, check func(string) error) {
		if slices.Contains([]string{inSecret, inParameter, inFile}, p.in) {
			texts = append(texts, text{what, setting, source(cloud, p, key), check})
		}
	}
	add("token", envLogin, c.login, tokenKey, notEmpty)
	add("ca", envCA, c.ca, caKey, hasCertificate)
	add("castai key", envCASTAIKey, c.castai.key, castaiKey, notEmpty)
	return texts
}

func (s selfChecker) readTexts() (probes []probe) {
	for _, t := range s.texts {
		probes = append(probes, probe{t.what, "put it where " + t.setting + " says, and let the function read it there",
			func(ctx context.Context) (string, error) {
				value, err := t.read(ctx)
				if err != nil {
					return "", err
				}
				return "it can be read", t.check(value)
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
		return errors.New("there is no certificate in it")
	}
	return nil
}
