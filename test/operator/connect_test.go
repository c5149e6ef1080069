package operator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	agentSpace = "castai-agent"
	agentToken = "4e3a7a70-the-agents-token"
)

// connecting installs CAST AI's agent, says why its pods do not run, and removes it.
func connecting(t *testing.T) {
	w := home(t)
	core := cp().Client().CoreV1()
	connect := func(args ...string) (commandResult, string, error) {
		t.Helper()
		stdout, stderr, err := w.commandWith([]string{"CASTAI_API_TOKEN=" + agentToken}, append([]string{"connect", "--state",
			"s3://store/folder", "--output", "json"}, args...)...)
		if strings.Contains(stdout+stderr, agentToken) {
			t.Errorf("the output has the token:\n%s%s", stdout, stderr)
		}
		var is commandResult
		if bad := json.Unmarshal([]byte(stdout), &is); bad != nil && err == nil {
			t.Fatalf("%v: %s", bad, stdout)
		}
		return is, stderr, err
	}
	if stdout, stderr, err := w.command("__complete", "restore", ""); err != nil || !strings.Contains(stdout, homeWorker+"\n") {
		t.Errorf("completing a node: %v: %s%s", err, stdout, stderr)
	}
	if _, stderr, err := w.command("connect", "--state", "s3://store"); err == nil || !strings.Contains(stderr, "no API token: create one") {
		t.Errorf("without a token: %v: %s", err, stderr)
	}
	dir := t.TempDir()
	w.mustRun("connect", "--state", "s3://store", "--export", dir)
	if text := string(must(os.ReadFile(filepath.Join(dir, "agent.yaml")))); !strings.Contains(text, "value: "+cluster) {
		t.Errorf("the export has no values:\n%s", text)
	}
	if _, stderr, err := connect(); err == nil || strings.Count(stderr, "create") != 15 || !strings.Contains(stderr, "14 to create") {
		t.Errorf("the plan: %v\n%s", err, stderr)
	}

	failing := func(reason string) {
		t.Helper()
		patch := `{"metadata":{"annotations":{"` + testenv.WaitingAnnotation + `":"` + reason + `"}}}`
		must(core.Nodes().Patch(t.Context(), homeWorker, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
		zero := int64(0)
		try(core.Pods(agentSpace).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}))
	}
	because := func(what string, want ...string) {
		t.Helper()
		is, stderr, err := connect("--yes")
		if err == nil || !is.Findings.Failed() {
			t.Errorf("%s: %v: %+v\n%s", what, err, is, stderr)
		}
		for _, text := range want {
			if !slices.ContainsFunc(is.Findings, func(f change.Finding) bool { return strings.Contains(f.Detail+"\n"+f.Advice, text) }) {
				t.Errorf("%s: no finding says %q: %+v", what, text, is.Findings)
			}
		}
	}
	failing("ImagePullBackOff")
	because("an image", "ImagePullBackOff: Back-off pulling image us-docker.pkg.dev/castai-hub/library/agent:", "reach the registry")
	failing("CrashLoopBackOff")
	because("a crash", "CrashLoopBackOff after exit code 1", " --container=agent --previous")
	none := corev1.ResourceList{"pods": resource.MustParse("0")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}
	quota = must(core.ResourceQuotas(agentSpace).Create(t.Context(), quota, metav1.CreateOptions{}))
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none} // as its controller does
	must(core.ResourceQuotas(agentSpace).UpdateStatus(t.Context(), quota, metav1.UpdateOptions{}))
	failing("")
	because("a quota", "FailedCreate: ", "exceeded quota: theirs", "change what refuses the pods")
	try(core.ResourceQuotas(agentSpace).Delete(t.Context(), "theirs", metav1.DeleteOptions{}))
	// New ReplicaSets create pods sooner than the controller tries again with the old ones.
	try(cp().Client().AppsV1().ReplicaSets(agentSpace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	eventually(t, "pods are created again", func() error {
		for _, d := range must(cp().Client().AppsV1().Deployments(agentSpace).List(t.Context(), metav1.ListOptions{})).Items {
			for _, c := range d.Status.Conditions {
				if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
					return errors.New(c.Message)
				}
			}
		}
		return nil
	})
	is, stderr, err := connect("--yes")
	if err != nil || is.Findings.Failed() || is.Applied || !strings.Contains(fmt.Sprint(is.Findings), "castai-agent/castai-agent: 2 of 2 pods are available") ||
		!strings.Contains(fmt.Sprint(is.Findings),
			"refused token only in its log kubectl --namespace=castai-agent logs deployment/castai-agent --container=agent") {
		t.Errorf("connected: %v: %+v\n%s", err, is, stderr)
	}
	before := inNamespace(t)
	again, _, err := w.asJSON("connect", "--state", "s3://store/folder") // without the token, which the cluster has
	if after := inNamespace(t); err != nil || !again.Plan.Empty() || after != before {
		t.Errorf("connected again: %v: %+v; changed from\n%s\nto\n%s", err, again.Plan, before, after)
	}
	if _, said, err := w.commandWith([]string{"CASTAI_API_TOKEN=another-token"}, "connect", "--state", "s3://store/folder"); err == nil ||
		!strings.Contains(said, "data.API_KEY changes") || strings.Contains(said, "another-token") ||
		strings.Contains(said, base64.StdEncoding.EncodeToString([]byte("another-token"))) {
		t.Errorf("another token: %v: %s", err, said)
	}
	agentPermissions(t)

	must(core.ConfigMaps(agentSpace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}, metav1.CreateOptions{}))
	const replaced = "castai-agent-autoscaler" // by Helm
	must(core.ConfigMaps(agentSpace).Patch(t.Context(), replaced, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}`), metav1.PatchOptions{}))
	away := w.succeed("disconnect")
	if left := inNamespace(t); !strings.Contains(fmt.Sprint(away.Plan),
		"{leave Namespace castai-agent others have put objects into it: ConfigMap "+replaced+", ConfigMap theirs") ||
		left != "configmaps "+replaced+"\nconfigmaps kube-root-ca.crt\nconfigmaps theirs" {
		t.Errorf("disconnected: %+v; left:\n%s", away.Plan, left)
	}
	for _, name := range []string{"theirs", replaced} {
		try(core.ConfigMaps(agentSpace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	eventually(t, "the pods end", func() error { // Kubernetes looks at a namespace with pods again only after half their grace period
		if left := must(core.Pods(agentSpace).List(t.Context(), metav1.ListOptions{})).Items; len(left) > 0 {
			return fmt.Errorf("%d pods", len(left))
		}
		return nil
	})
	w.succeed("disconnect")
	if _, err := core.Namespaces().Get(t.Context(), agentSpace, metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
	if again := w.succeed("disconnect"); again.Applied || !again.Plan.Empty() {
		t.Errorf("disconnected again: %+v", again.Plan)
	}
	for _, kind := range []string{"clusterroles", "clusterrolebindings", "roles", "rolebindings"} {
		for _, o := range must(cp().admin.Resource(schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1",
			Resource: kind}).List(t.Context(), metav1.ListOptions{})).Items {
			if o.GetName() == "castai-agent" {
				t.Errorf("left: %s %s", kind, o.GetName())
			}
		}
	}
	agentOfOthers(t, w, connect)
}

// agentOfOthers: an agent that somebody else has installed stays as it is.
func agentOfOthers(t *testing.T, w *world, connect func(...string) (commandResult, string, error)) {
	try(cp().Apply(t.Context(), []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: castai-agent}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: castai-agent, namespace: castai-agent, labels: {app.kubernetes.io/managed-by: Helm}, annotations: {meta.helm.sh/release-name: castai-agent}}
spec:
  replicas: 1
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "us-docker.pkg.dev/castai-hub/library/agent:v0.1"}]}
`)))
	t.Cleanup(func() {
		try(cp().Client().CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), agentSpace, metav1.DeleteOptions{}))
	})
	is, stderr, err := connect("--yes")
	if err != nil || is.Applied || !strings.Contains(fmt.Sprint(is.Plan), "is installed already: nothing is changed; Helm applies it") {
		t.Errorf("an agent of others: %v: %+v\n%s", err, is, stderr)
	}
	if away := w.succeed("disconnect"); away.Applied {
		t.Errorf("an agent of others is removed: %+v", away.Plan)
	}
}

// inNamespace returns the objects in the agent's namespace that commands write, with the versions of what has a spec.
func inNamespace(t *testing.T) string {
	t.Helper()
	var all []string
	for _, kind := range [][3]string{{"", "v1", "configmaps"}, {"", "v1", "secrets"}, {"", "v1", "resourcequotas"}, {"apps", "v1", "deployments"},
		{"rbac.authorization.k8s.io", "v1", "roles"}, {"rbac.authorization.k8s.io", "v1", "rolebindings"}, {"policy", "v1", "poddisruptionbudgets"}} {
		r := schema.GroupVersionResource{Group: kind[0], Version: kind[1], Resource: kind[2]}
		for _, o := range must(cp().admin.Resource(r).Namespace(agentSpace).List(t.Context(), metav1.ListOptions{})).Items {
			line := kind[2] + " " + o.GetName()
			if o.GetGeneration() > 0 {
				line += fmt.Sprint(" generation ", o.GetGeneration())
			}
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

// agentPermissions asks the API server what the agent may do: it reads, and writes some kinds in its own namespace.
func agentPermissions(t *testing.T) {
	t.Helper()
	as := rest.CopyConfig(cp().AdminConfig())
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:castai-agent:castai-agent",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:castai-agent", "system:authenticated"}}
	client := must(kubernetes.NewForConfig(as)).AuthorizationV1()
	for _, namespace := range []string{"default", kubeSystem} {
		rules := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
		for _, r := range must(client.SelfSubjectRulesReviews().Create(t.Context(), rules, metav1.CreateOptions{})).Status.ResourceRules {
			everybody := strings.HasSuffix(r.APIGroups[0], ".k8s.io") && strings.HasPrefix(r.APIGroups[0], "auth") // may review itself
			reads := !slices.ContainsFunc(r.Verbs, func(verb string) bool { return !slices.Contains([]string{"get", "list", "watch"}, verb) })
			if !everybody && !reads || slices.Contains(r.Resources, "secrets") {
				t.Errorf("in %s, the agent has %+v", namespace, r)
			}
		}
	}
	reviews := client.SelfSubjectAccessReviews()
	for _, c := range []struct {
		namespace, verb, group, resource, name string
		want                                   bool
	}{
		{"", "list", "", "pods", "", true}, {"", "watch", "", "nodes", "", true}, {"", "list", "apps", "deployments", "", true},
		{"", "get", "rbac.authorization.k8s.io", "clusterroles", "", true}, {"", "list", "autoscaling.cast.ai", "anything", "", true},
		{"kube-system", "list", "", "configmaps", "", true}, {"default", "list", "", "configmaps", "", false},
		{"", "get", "", "secrets", "", false}, {agentSpace, "get", "", "secrets", "castai-agent", false}, {"kube-system", "list", "", "secrets", "", false},
		{agentSpace, "create", "coordination.k8s.io", "leases", "", true}, {"kube-system", "update", "coordination.k8s.io", "leases", "", false},
		{agentSpace, "patch", "", "configmaps", "", true}, {agentSpace, "delete", "", "configmaps", "", false}, {"kube-system", "update", "", "configmaps", "", false},
		{agentSpace, "patch", "apps", "deployments", "castai-agent", true}, {agentSpace, "patch", "apps", "deployments", "castai-agent-cpvpa", false},
		{"default", "patch", "apps", "deployments", "castai-agent", false}, {"", "create", "", "pods", "", false}, {agentSpace, "create", "", "pods", "", false},
		{"", "delete", "", "pods", "", false}, {"", "patch", "", "nodes", "", false}, {"", "create", "", "pods/eviction", "", false},
		{"", "impersonate", "", "users", "", false}, {"", "bind", "rbac.authorization.k8s.io", "clusterroles", "", false}, {"", "*", "*", "*", "", false},
	} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: c.namespace, Verb: c.verb, Group: c.group, Resource: c.resource, Name: c.name}}}
		if is := must(reviews.Create(t.Context(), review, metav1.CreateOptions{})).Status.Allowed; is != c.want {
			t.Errorf("%+v is allowed: %v", c, is)
		}
	}
}
