package operator

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	names "github.com/castai/kops-spot/iam"
	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/rehearse"
	"github.com/castai/kops-spot/internal/spot"
)

// rehearsals sends rehearsals to the installed function.
func rehearsals(t *testing.T, w *world) {
	logGroup := "/aws/lambda/" + names.FunctionName(cluster)
	for _, c := range []struct {
		name string
		run  func(t *testing.T, w *world)
	}{
		// Lambda retries it a minute later, in parallel with the other tests.
		{"the function fails: the error is shown at once", func(t *testing.T, w *world) {
			defer w.expire()()
			_, stderr, err := w.command("rehearse", w.newNode(cluster), "--yes", "--function", names.FunctionName(cluster))
			if err == nil || !strings.Contains(stderr, "the function failed: ") || !strings.Contains(stderr, "rejected the credential (401)") {
				t.Errorf("%v: %s", err, stderr)
			}
		}},
		{"by default, the function only plans", func(t *testing.T, w *world) {
			node := w.newNode(cluster)
			addPod(t, node, "planned", false)
			stdout, stderr := w.mustRun("rehearse", node, "--yes", "--output", "json")
			var out spot.Outcome
			if err := json.Unmarshal([]byte(stdout), &out); err != nil {
				t.Fatalf("%v: %s", err, stdout)
			}
			if out.Result != spot.Planned || out.Node != node || out.Event.Kind != spot.SpotTerminate || !strings.Contains(stderr, "sent event "+out.Event.ID) {
				t.Errorf("%s%s", stdout, stderr)
			}
			if !isClean(t, node, "planned") {
				t.Error("the pod was evicted")
			}
			i, err := kopsaws.New(w.direct).Instance(t.Context(), node)
			if err != nil || !maps.Equal(i.Tags, map[string]string{spot.TagCluster: cluster}) {
				t.Errorf("the instance has the tags %v, %v", i.Tags, err)
			}
		}},
		{"acting rehearsals drain and restore the node", func(t *testing.T, w *world) {
			defer w.environment("KOPS_SPOT_REHEARSALS", "act")()
			node := w.newNode(cluster)
			addPod(t, node, "acted", false)
			stdout, stderr := w.mustRun("rehearse", node, "--yes")
			if !strings.HasPrefix(stdout, "drained  "+node) || !strings.Contains(stdout, "no replacement requested: rehearsal") {
				t.Fatalf("%s%s", stdout, stderr)
			}
			for _, step := range []string{"cordoned node", "evicted pod default/acted", "restored node after rehearsal"} {
				if !strings.Contains(stderr, step) {
					t.Errorf("step %q is missing in\n%s", step, stderr)
				}
			}
			if isClean(t, node, "acted") {
				t.Error("the pod still exists")
			}
		}},
		{"budgets are respected until the deadline (the event is backdated)", func(t *testing.T, w *world) {
			defer w.environment("KOPS_SPOT_REHEARSALS", "act")()
			node := w.newNode(cluster)
			addPod(t, node, "guarded", true)
			s := rehearse.New(w.direct)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			sent := time.Now()
			id := must(s.Send(ctx, spot.Interruption{Kind: spot.SpotTerminate, Instance: node, Region: region, Time: sent.Add(-112 * time.Second)}, "default"))
			out, err := s.FromLog(ctx, logGroup, id, sent.Add(-time.Minute), func(string) {})
			if err != nil || out.Result != spot.Incomplete || out.Replacement.Action != spot.ReplaceNone {
				t.Fatalf("%v: %+v", err, out)
			}
			if !isClean(t, node, "guarded") {
				t.Error("a rehearsal deleted a pod despite its budget")
			}
		}},
		{"no outcome: a checklist is shown", func(t *testing.T, w *world) {
			node := w.newNode(cluster)
			w.busWithoutRule()
			_, stderr, err := w.command("rehearse", node, "--yes", "--bus", "silent", "--wait", "5s", "--log-group", "/of/nobody")
			deliveries := events().Deliveries()
			if last := deliveries[len(deliveries)-1]; last.Reason != "the rule is disabled" || !strings.Contains(stderr, last.EventID) {
				t.Errorf("failed in another place: %+v", last)
			}
			if err == nil || !strings.Contains(stderr, "no outcome of the rehearsal was found in the log group /of/nobody") ||
				!strings.Contains(stderr, "that a rule of the bus is enabled") {
				t.Errorf("%v: %s", err, stderr)
			}
		}},
		{"an unreadable log: nothing is sent", func(t *testing.T, w *world) {
			w.refused("reading the log group /aws/lambda/another", []string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=http://127.0.0.1:1"},
				"rehearse", w.newNode(cluster), "--yes", "--function", "another")
		}},
		{"an instance of another cluster: nothing is sent", func(t *testing.T, w *world) {
			node := w.newNode("other.example.com")
			w.refused("other.example.com", nil, "rehearse", node, "--yes")
			w.refused("other.example.com", nil, "rehearse", node)
		}},
		{"without a terminal and --yes: nothing is sent", func(t *testing.T, w *world) {
			w.refused("--yes", nil, "rehearse", w.newNode(cluster))
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, w.in(t)) })
	}
}

// refused runs a rehearsal that is rejected before it is sent.
func (w *world) refused(why string, environ []string, args ...string) {
	w.Helper()
	before := len(events().Deliveries())
	_, stderr, err := w.commandWith(environ, args...)
	if n := len(events().Deliveries()) - before; err == nil || !strings.Contains(stderr, why) || n > 0 {
		w.Errorf("%v, and %d deliveries: %s", err, n, stderr)
	}
}

// busWithoutRule creates a bus whose only rule is disabled.
func (w *world) busWithoutRule() {
	w.Helper()
	client, bus, rule := eventbridge.NewFromConfig(w.direct), aws.String("silent"), aws.String("rehearsals")
	must(client.CreateEventBus(w.Context(), &eventbridge.CreateEventBusInput{Name: bus}))
	must(client.PutRule(w.Context(), &eventbridge.PutRuleInput{Name: rule, EventBusName: bus, State: ebtypes.RuleStateDisabled,
		EventPattern: aws.String(`{"source": ["kops-spot.rehearsal"]}`)}))
	must(client.PutTargets(w.Context(), &eventbridge.PutTargetsInput{Rule: rule, EventBusName: bus, Targets: []ebtypes.Target{
		{Id: aws.String("function"), Arn: aws.String("arn:aws:lambda:" + region + ":" + account + ":function:" + names.FunctionName(cluster))}}}))
}

// addPod creates a pod without a controller on a node; if guarded, with a budget that never allows its eviction.
func addPod(t *testing.T, node, name string, guarded bool) {
	t.Helper()
	client := cp().Client()
	labels := map[string]string{"app": name}
	must(client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "main", Image: "none"}}}}, metav1.CreateOptions{}))
	if !guarded {
		return
	}
	must(client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}}}, metav1.CreateOptions{}))
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, err := client.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && b.Status.CurrentHealthy == 1 && b.Status.DisruptionsAllowed == 0 {
			return
		}
	}
	t.Fatal("the budget did not count its pod as healthy")
}

// isClean checks that a node is restored, and reports whether the pod is still on it.
func isClean(t *testing.T, node, pod string) (there bool) {
	t.Helper()
	n := must(cp().Client().CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{}))
	for key := range n.Annotations {
		if strings.HasPrefix(key, spot.AnnotationPrefix) {
			t.Errorf("the node has the annotation %s", key)
		}
	}
	if n.Spec.Unschedulable || len(n.Spec.Taints) > 0 {
		t.Errorf("unschedulable %v, taints %v", n.Spec.Unschedulable, n.Spec.Taints)
	}
	p, err := cp().Client().CoreV1().Pods("default").Get(t.Context(), pod, metav1.GetOptions{})
	return err == nil && p.DeletionTimestamp == nil
}
