package rehearse

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/rehearsal"
	"github.com/castai/kops-spot/internal/spot"
)

// kopsSpot runs the command line as somebody who is logged in to both.
func kopsSpot(t *testing.T, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, stage.bin, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+stage.cp.Kubeconfig(), "KOPS_SPOT_CLUSTER="+cluster, "AWS_ENDPOINT_URL="+stage.bridge.URL,
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if text := out.String() + errs.String(); strings.Contains(text, stage.token) {
		t.Error("the token stands in the output")
	}
	return out.String(), errs.String(), err == nil
}

// addPod puts a pod of nobody's on a node; guarded, no budget ever lets it go.
func addPod(t *testing.T, node, name string, guarded bool) {
	t.Helper()
	client := stage.cp.Client()
	labels := map[string]string{"app": name}
	_, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "main", Image: "none"}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !guarded {
		return
	}
	_, err = client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, err := client.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && b.Status.CurrentHealthy == 1 && b.Status.DisruptionsAllowed == 0 {
			return
		}
	}
	t.Fatal("the budget never saw its pod healthy")
}

// isClean demands that a node carries nothing of ours and takes pods, and says whether the pod is still on it.
func isClean(t *testing.T, node, pod string) (there bool) {
	t.Helper()
	n, err := stage.cp.Client().CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key := range n.Annotations {
		if strings.HasPrefix(key, spot.AnnotationPrefix) {
			t.Errorf("the node has the annotation %s", key)
		}
	}
	if n.Spec.Unschedulable || len(n.Spec.Taints) > 0 {
		t.Errorf("the node is unschedulable %v, with the taints %v", n.Spec.Unschedulable, n.Spec.Taints)
	}
	p, err := stage.cp.Client().CoreV1().Pods("default").Get(t.Context(), pod, metav1.GetOptions{})
	return err == nil && p.DeletionTimestamp == nil
}

// TestARehearsalIsPlanned, and nothing else, unless the function is configured otherwise; it is found in the function's log.
func TestARehearsalIsPlanned(t *testing.T) {
	t.Parallel()
	node := newNode(t, cluster)
	addPod(t, node, "planned", false)
	stdout, stderr, ok := kopsSpot(t, "rehearse", node, "--yes", "--output", "json")
	if !ok {
		t.Fatalf("%s%s", stdout, stderr)
	}
	var out spot.Outcome
	if err := json.Unmarshal([]byte(stdout), &out); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if out.Result != spot.Planned || out.Node != node || out.Event.Kind != spot.SpotTerminate || !strings.Contains(stderr, "sent: event "+out.Event.ID) {
		t.Errorf("%s%s", stdout, stderr)
	}
	if !isClean(t, node, "planned") {
		t.Error("the pod was ended")
	}
	i, err := awscloud.New(stage.aws).Instance(t.Context(), node)
	if err != nil || !maps.Equal(i.Tags, map[string]string{spot.TagCluster: cluster}) {
		t.Errorf("the instance has the tags %v, %v", i.Tags, err)
	}
}

// TestARehearsalThatActs drains, and leaves the node as it was.
func TestARehearsalThatActs(t *testing.T) {
	t.Parallel()
	node := newNode(t, cluster)
	addPod(t, node, "acted", false)
	stdout, stderr, ok := kopsSpot(t, "rehearse", node, "--yes", "--bus", acting, "--log-group", "/aws/lambda/"+acting)
	if !ok || !strings.HasPrefix(stdout, "emptied  "+node) || !strings.Contains(stdout, "no replacement asked: it is a rehearsal") {
		t.Fatalf("%s%s", stdout, stderr)
	}
	for _, step := range []string{"cordoned the node", "told a pod to end default/acted", "took the rehearsal's marks away"} {
		if !strings.Contains(stderr, step) {
			t.Errorf("nothing tells of the step %q in\n%s", step, stderr)
		}
	}
	if isClean(t, node, "acted") {
		t.Error("the pod is still there")
	}
}

// TestARehearsalRespectsBudgets to the end: it is dated back, so that this is near.
func TestARehearsalRespectsBudgets(t *testing.T) {
	t.Parallel()
	node := newNode(t, cluster)
	addPod(t, node, "guarded", true)
	s := rehearsal.New(stage.aws)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sent := time.Now()
	id, err := s.Send(ctx, spot.Interruption{Kind: spot.SpotTerminate, Instance: node, Region: region, Time: sent.Add(-112 * time.Second)}, acting)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.FromLog(ctx, "/aws/lambda/"+acting, id, sent.Add(-time.Minute), func(string) {})
	if err != nil || out.Result != spot.NotEmptied || out.Replacement.Action != spot.ReplaceNone {
		t.Fatalf("%v: %+v", err, out)
	}
	if !isClean(t, node, "guarded") {
		t.Error("a pod that a budget guards was ended by a rehearsal")
	}
}

// TestABrokenChainIsToldOf: nothing comes, and it is said where to look.
func TestABrokenChainIsToldOf(t *testing.T) {
	node := newNode(t, cluster)
	_, stderr, ok := kopsSpot(t, "rehearse", node, "--yes", "--bus", "silent", "--wait", "5s")
	deliveries := stage.bridge.Deliveries()
	if last := deliveries[len(deliveries)-1]; last.Reason != "the rule is disabled" || !strings.Contains(stderr, last.EventID) {
		t.Errorf("the chain is broken in another place than was meant: %+v", last)
	}
	if ok || !strings.Contains(stderr, "nothing was heard of the rehearsal in the log group /aws/lambda/"+names.FunctionName(cluster)) ||
		!strings.Contains(stderr, "whether a rule of the bus is enabled") {
		t.Errorf("%v: %s", ok, stderr)
	}
}

// TestNothingIsSentThatCouldNotBeFollowed: a log that cannot be read is found before a node is drained.
func TestNothingIsSentThatCouldNotBeFollowed(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://127.0.0.1:1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	before := len(stage.bridge.Deliveries())
	_, stderr, ok := kopsSpot(t, "rehearse", newNode(t, cluster), "--yes")
	if ok || !strings.Contains(stderr, "nothing was sent: reading the log group /aws/lambda/"+names.FunctionName(cluster)) ||
		len(stage.bridge.Deliveries()) != before {
		t.Errorf("%v: %s", ok, stderr)
	}
}

// TestAFunctionThatFailsIsToldOf at once, with what it says. Its retry comes a minute later.
func TestAFunctionThatFailsIsToldOf(t *testing.T) {
	t.Parallel()
	_, stderr, ok := kopsSpot(t, "rehearse", newNode(t, cluster), "--yes", "--bus", failing, "--function", failing)
	if ok || !strings.Contains(stderr, "the function did nothing: ") || !strings.Contains(stderr, "does not accept the credential (401)") {
		t.Errorf("%v: %s", ok, stderr)
	}
}

// TestNothingIsSentForAnothersInstance: kubeconfig and credentials must lead to one cluster.
func TestNothingIsSentForAnothersInstance(t *testing.T) {
	before := len(stage.bridge.Deliveries())
	other := newNode(t, "other.example.com")
	_, stderr, ok := kopsSpot(t, "rehearse", other, "--yes")
	if ok || !strings.Contains(stderr, "nothing was sent") || !strings.Contains(stderr, "other.example.com") {
		t.Errorf("%v: %s", ok, stderr)
	}
	_, stderr, ok = kopsSpot(t, "rehearse", other)
	if ok {
		t.Errorf("%v: %s", ok, stderr)
	}
	if n := len(stage.bridge.Deliveries()); n != before {
		t.Errorf("%d deliveries", n-before)
	}
}

// TestNothingIsSentWithoutAYes where nobody can be asked.
func TestNothingIsSentWithoutAYes(t *testing.T) {
	before := len(stage.bridge.Deliveries())
	_, stderr, ok := kopsSpot(t, "rehearse", newNode(t, cluster))
	if ok || !strings.Contains(stderr, "--yes") || len(stage.bridge.Deliveries()) != before {
		t.Errorf("%v: %s", ok, stderr)
	}
}
