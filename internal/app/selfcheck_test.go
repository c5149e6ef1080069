package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const (
	cluster = "prod.example.com"
	group   = "nodes." + cluster
	warned  = "i-0123456789abcdef0"
)

// checkWorld is a cluster, its account and a self-check, in a synctest bubble.
type checkWorld struct {
	*testing.T
	cluster *spottest.Cluster
	aws     *spottest.AWS
	checker selfChecker
	logged  *bytes.Buffer
}

func inCheckWorld(t *testing.T, test func(w *checkWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := &checkWorld{T: t, cluster: spottest.NewCluster(), aws: spottest.NewAWS("us-east-1"), logged: new(bytes.Buffer)}
		w.aws.AddGroup(spottest.Group{Name: group, Min: 1, Max: 1, Desired: 1, Tags: map[string]string{spot.TagCluster: cluster}, Spot: true,
			LaunchTime: 20 * time.Second, DetachTime: time.Second}, spottest.Instance{ID: warned, Spot: true})
		w.cluster.AddNode(spot.Node{Name: warned, ProviderID: "aws:///us-east-1a/" + warned})
		w.checker = selfChecker{cfg: Config{Cluster: cluster, Mode: Act, Policy: spot.DefaultPolicy(cluster)},
			cluster: w.cluster, cloud: w.aws.Cloud()}
		test(w)
	})
}

// run runs the self-check. It must take less than 30 s, and its result must be consistent.
func (w *checkWorld) run(want Readiness) SelfCheck {
	w.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(w.Context(), 15*time.Minute)
	defer cancel()
	result := w.checker.run(ctx)
	if took := time.Since(began); took >= 29*time.Second {
		w.Errorf("took %s", took)
	}
	if result.Result != want || result.Version != 1 || result.Cluster != cluster {
		w.Errorf("got %s, want %s: %+v", result.Result, want, result)
	}
	for _, c := range result.Checks {
		if c.Name == "" || c.Detail == "" || c.OK != (c.Advice == "") {
			w.Errorf("a check without detail, or a failed one without advice: %+v", c)
		}
	}
	return result
}

func (w *checkWorld) check(result SelfCheck, name string) Check {
	w.Helper()
	i := slices.IndexFunc(result.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		w.Fatalf("check %q is missing: %+v", name, result.Checks)
	}
	return result.Checks[i]
}

func failedChecks(result SelfCheck) (names []string) {
	for _, c := range result.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return names
}

func kept(value string, err error) kube.Source {
	return func(context.Context) (string, error) { return value, err }
}

// TestReady: everything is checked, nothing is changed, and the permission for Karpenter is checked only if the policy
// requires it.
func TestReady(t *testing.T) {
	for name, replace := range map[string]spot.Replacer{"automatic": spot.ReplacerAuto, "Karpenter": spot.ReplacerKarpenter} {
		inCheckWorld(t, func(w *checkWorld) {
			w.checker.cfg.Policy.Replace = replace
			w.checker.texts = []text{{"token", envLogin, inSecret, kept("t", nil), notEmpty}, {"ca", envCA, inSecret, kept(testCA(w.T), nil), hasCertificate}}
			result := w.run(Ready)
			var names, want []string
			for _, c := range result.Checks {
				names = append(names, c.Name)
			}
			want = []string{"authentication", "aws", "token", "ca", "rbac: get nodes", "rbac: list nodes", "rbac: watch nodes", "rbac: patch nodes", "rbac: delete nodes", "rbac: list pods",
				"rbac: watch pods", "rbac: create pods/eviction", "rbac: patch pods/status", "rbac: delete pods", "rbac: list volumeattachments.storage.k8s.io", "rbac: watch volumeattachments.storage.k8s.io",
				"rbac: create events.events.k8s.io"}
			if replace == spot.ReplacerKarpenter {
				want = append(want, "rbac: delete nodeclaims.karpenter.sh")
			}
			if want = append(want, "overdue instances"); !slices.Equal(names, want) {
				w.Errorf("replacement %s: checked\n%s\nwant\n%s", name, strings.Join(names, "\n"), strings.Join(want, "\n"))
			}
			if result.Overdue == nil || len(result.Overdue) != 0 {
				w.Errorf("overdue: %v", result.Overdue)
			}
			for _, r := range w.cluster.Requests() {
				if r.Verb != "get" && r.Verb != "list" && r.Resource != "selfsubjectaccessreviews" {
					w.Errorf("%s %s changed something", r.Verb, r.Resource)
				}
			}
			if n := len(w.aws.Calls("CreateTags", "DetachInstances")); n != 0 {
				w.Errorf("%d calls changed something", n)
			}
		})
	}
}

// TestNotReady: exactly the checks of the cause fail, with advice.
func TestNotReady(t *testing.T) {
	refused := errors.New("the API server rejected the credential (401): the token expired")
	silence := fmt.Errorf("reading secret x: %w within 5s", aws.ErrNoResponse)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, noInstance, errors.New("no rule"))
	for name, c := range map[string]struct {
		disturb func(w *checkWorld)
		failed  []string
		detail  string // of the first
		advice  string
	}{
		"rejected credentials": {
			disturb: func(w *checkWorld) {
				w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Err: spot.Permanent(refused)})
			},
			failed: []string{"authentication", "rbac", "overdue instances"}, detail: "the token expired", advice: "KOPS_SPOT_SERVER"},
		"no permission to read nodes": {
			disturb: func(w *checkWorld) {
				w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Err: spot.Permanent(forbidden)})
				w.cluster.Forbid("get", "nodes")
			},
			failed: []string{"rbac: get nodes"}, detail: "finding the node by its name is not allowed", advice: "apply deploy/rbac.yaml"},
		"no permission for a subresource": {
			disturb: func(w *checkWorld) { w.cluster.Forbid("create", "pods/eviction") },
			failed:  []string{"rbac: create pods/eviction"}, detail: "evicting pods is not allowed", advice: "apply deploy/rbac.yaml"},
		"two missing permissions": {
			disturb: func(w *checkWorld) {
				w.checker.cfg.Policy.Replace = spot.ReplacerKarpenter
				w.cluster.Forbid("delete", "nodeclaims")
				w.cluster.Forbid("watch", "pods")
			},
			failed: []string{"rbac: watch pods", "rbac: delete nodeclaims.karpenter.sh"}, detail: "is not allowed", advice: "apply deploy/rbac"},
		"an unneeded permission": {disturb: func(w *checkWorld) { w.cluster.Forbid("delete", "nodeclaims") }},
		"permissions that cannot be checked": {
			disturb: func(w *checkWorld) {
				w.cluster.Forbid("watch", "pods")
				w.checker.cluster = noReviews{w.cluster}
			},
			failed: []string{"rbac: watch pods"}, detail: "503", advice: "apply deploy/rbac.yaml"},
		"EC2 denied": {
			disturb: func(w *checkWorld) { w.aws.Fail("DescribeInstances", -1, spottest.Denied()) },
			failed:  []string{"aws", "overdue instances"}, detail: "describing instances", advice: "iam/handler.json"},
		"Auto Scaling denied": {
			disturb: func(w *checkWorld) { w.aws.Fail("DescribeAutoScalingGroups", -1, spottest.Denied()) },
			failed:  []string{"aws", "overdue instances"}, detail: "describing Auto Scaling groups", advice: "iam/handler.json"},
		"a secret that cannot be read": {
			disturb: func(w *checkWorld) {
				w.checker.texts = []text{{"castai key", envCASTAIKey, inSecret, kept("", errors.New("reading secret x: denied")), notEmpty}}
			},
			failed: []string{"castai key"}, detail: "reading secret x: denied", advice: "KOPS_SPOT_CASTAI_KEY"},
		"an empty secret": {
			disturb: func(w *checkWorld) {
				w.checker.texts = []text{{"token", envLogin, inSecret, kept(" \n", nil), notEmpty}}
			},
			failed: []string{"token"}, detail: "it is empty", advice: "KOPS_SPOT_LOGIN"},
		"an invalid CA": {
			disturb: func(w *checkWorld) {
				w.checker.texts = []text{{"ca", envCA, inSecret, kept("very-secret", nil), hasCertificate}}
			},
			failed: []string{"ca"}, detail: "no certificate found", advice: "KOPS_SPOT_CA"},
		"a secret without a route": {
			disturb: func(w *checkWorld) {
				w.checker.texts = []text{{"token", envLogin, inSecret, kept("", silence), notEmpty}, {"ca", envCA, inParameter,
					kept(testCA(w.T), nil), hasCertificate}}
				w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Err: context.DeadlineExceeded})
			},
			failed: []string{"authentication", "token", "rbac", "overdue instances"}, detail: "deadline exceeded", advice: `see "token"`},
		"a parameter without a route": {
			disturb: func(w *checkWorld) {
				w.checker.texts = []text{{"castai key", envCASTAIKey, inParameter, kept("", silence), notEmpty}}
				w.checker.castai = func(context.Context) error { return silence }
			},
			failed: []string{"castai key", "castai"}, detail: "no response", advice: "connect to ssm: from a private subnet, that requires a NAT gateway"},
		"CAST AI": {
			disturb: func(w *checkWorld) {
				w.checker.castai = func(context.Context) error { return errors.New("it answers 401") }
			},
			failed: []string{"castai"}, detail: "it answers 401", advice: "NAT gateway or a proxy"},
		"nodes that cannot be listed": {
			disturb: func(w *checkWorld) {
				w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "nodes", Err: errors.New("etcdserver: request timed out")})
			},
			failed: []string{"overdue instances"}, detail: "etcdserver", advice: "to the cluster or to EC2"},
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				c.disturb(w)
				want := NotReady
				if len(c.failed) == 0 {
					want = Ready
				}
				result := w.run(want)
				if got := failedChecks(result); !slices.Equal(got, c.failed) {
					w.Fatalf("failed checks: %q, want %q: %+v", got, c.failed, result.Checks)
				}
				if len(c.failed) > 0 {
					for _, check := range result.Checks { // those that depend on the first failed check are skipped
						depends := check.Name == "rbac" || check.Name == "overdue instances"
						if check.Skipped != (!check.OK && depends && check.Name != c.failed[0]) {
							w.Errorf("got %+v", check)
						}
					}
					if check := w.check(result, c.failed[0]); !strings.Contains(check.Detail, c.detail) || !strings.Contains(check.Advice, c.advice) {
						w.Errorf("got %+v", check)
					}
				}
				if b, _ := json.Marshal(result); bytes.Contains(b, []byte("very-secret")) {
					w.Errorf("the result contains a secret: %s", b)
				}
			})
		})
	}
}

// noReviews is a cluster that cannot review missing permissions.
type noReviews struct{ *spottest.Cluster }

func (d noReviews) Allowed(ctx context.Context, verb, group, resource, subresource string) (bool, string, error) {
	allowed, reason, err := d.Cluster.Allowed(ctx, verb, group, resource, subresource)
	if err == nil && !allowed {
		err = errors.New("checking permissions: 503")
	}
	return allowed, reason, err
}

// TestTransientFailures: a lost or throttled response is retried.
func TestTransientFailures(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.aws.Fail("DescribeInstances", 2, spottest.Throttled())
		w.cluster.Disturb(spottest.Disturbance{Times: 3, Err: spot.Permanent(errors.New("rejected the credential (401)"))})
		w.run(Ready)
	})
}

// TestTimeouts: a request that hangs fails its check and does not delay the result.
func TestTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		disturb func(w *checkWorld)
		failed  []string
	}{
		"a cluster": {func(w *checkWorld) { w.cluster.Disturb(spottest.Disturbance{Delay: time.Hour}) }, []string{"authentication", "rbac", "overdue instances"}},
		"permission reviews": {func(w *checkWorld) {
			w.cluster.Disturb(spottest.Disturbance{Resource: "selfsubjectaccessreviews", Delay: time.Hour})
		}, nil},
		"AWS": {func(w *checkWorld) { w.aws.Delay(spottest.AnyOperation, time.Hour) }, []string{"aws", "overdue instances"}},
		"a request that ignores its context": {func(w *checkWorld) {
			w.checker.texts = []text{{"token", envLogin, inSecret, func(context.Context) (string, error) { time.Sleep(time.Hour); return "t", nil }, notEmpty}}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				c.disturb(w)
				if result := w.run(NotReady); c.failed != nil && !slices.Equal(failedChecks(result), c.failed) {
					w.Errorf("failed checks: %q", failedChecks(result))
				}
				time.Sleep(time.Hour) // until all requests have ended
			})
		})
	}
}

// TestShortInvocation: the result is reported before the invocation ends.
func TestShortInvocation(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.aws.Delay(spottest.AnyOperation, time.Hour)
		ctx, cancel := context.WithTimeout(w.Context(), 6*time.Second)
		defer cancel()
		result := w.checker.run(ctx)
		if ctx.Err() != nil || result.Result != NotReady || !slices.Contains(failedChecks(result), "aws") {
			w.Errorf("got %+v, %v", result, ctx.Err())
		}
	})
}
