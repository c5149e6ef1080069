package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/castai/kops-spot/deploy"
)

// everybodys are requests that every authenticated user may send, to check permissions.
const everybodys = "create authorization.k8s.io/selfsubjectaccessreviews"

// checkPermissions compares the shipped RBAC with the handler's requests in the whole suite. Unused rules are errors,
// like denied requests.
func checkPermissions() error {
	allowed, err := allowedBy(deploy.RBAC)
	if err != nil {
		return err
	}
	optional, err := allowedBy(deploy.KarpenterRBAC)
	if err != nil {
		return err
	}
	allowed = append(allowed, optional...)
	time.Sleep(time.Second) // the audit log is a moment behind
	log, err := shared.cp.AuditLog()
	if err != nil {
		return err
	}
	var used, denied []string
	for _, r := range log {
		// The probe sends forbidden requests on purpose.
		if r.User != handlerUser && r.User != iamUser || strings.Contains(r.UserAgent, probeAgent) {
			continue
		}
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		what := r.Verb + " " + r.Group + "/" + resource
		if r.Forbidden {
			denied = append(denied, what)
		} else {
			used = append(used, what)
		}
	}
	slices.Sort(used)
	used = slices.Compact(used)
	var errs []error
	for _, a := range allowed {
		if !slices.Contains(used, a) {
			errs = append(errs, fmt.Errorf("the manifests in deploy/ allow %q, which the handler never did", a))
		}
	}
	for _, u := range used {
		if u != everybodys && !slices.Contains(allowed, u) {
			errs = append(errs, fmt.Errorf("the handler did %q, which no manifest in deploy/ allows", u))
		}
	}
	for _, d := range denied {
		errs = append(errs, fmt.Errorf("the handler was denied %q", d))
	}
	return errors.Join(errs...)
}

// allowedBy returns the permissions of the ClusterRole in a manifest, as "verb group/resource".
func allowedBy(manifest []byte) (allowed []string, err error) {
	for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var role rbacv1.ClusterRole
		switch err := docs.Decode(&role); {
		case errors.Is(err, io.EOF):
			return allowed, nil
		case err != nil:
			return nil, fmt.Errorf("reading the manifest: %w", err)
		case role.Kind != "ClusterRole":
			continue
		}
		for _, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				for _, group := range rule.APIGroups {
					for _, resource := range rule.Resources {
						allowed = append(allowed, verb+" "+group+"/"+resource)
					}
				}
			}
		}
	}
}
