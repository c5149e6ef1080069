package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/test/testenv"
)

// routerOfKops is kube-router as kOps 1.17.2 installs it, with a toleration of the cluster's administrators.
const routerOfKops = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-router, namespace: kube-system, annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}}
spec:
  selector: {matchLabels: {k8s-app: kube-router}}
  template:
    metadata: {labels: {k8s-app: kube-router}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers: [{name: kube-router, image: "cloudnativelabs/kube-router:v0.4.0"}]
      tolerations:
      - {key: CriticalAddonsOnly, operator: Exists}
      - {key: node-role.kubernetes.io/master, effect: NoSchedule}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoSchedule}
      - {key: theirs, operator: Equal, value: x, effect: NoExecute, tolerationSeconds: 9}
`

// routerFixed adds kube-router's missing tolerations, so that a node with custom taints gets its pod.
func routerFixed(t *testing.T) {
	w, client := home(t), cp().Client()
	daemonSets := client.AppsV1().DaemonSets(kubeSystem)
	if is := w.succeed("fix", "kube-router"); is.Applied || len(is.Findings) > 0 ||
		!strings.Contains(fmt.Sprint(is.Plan), "it does not exist: the cluster does not use kube-router") {
		t.Errorf("without kube-router: %+v", is)
	}
	checked := func(what string, level change.Level, advice string, args ...string) {
		t.Helper()
		is, stderr, _ := w.asJSON(args...) // without an installation, check fails
		i := slices.IndexFunc(is.Findings, func(f change.Finding) bool { return f.Name == "kube-router" })
		if found := i >= 0; found != (level != "") || found && (is.Findings[i].Level != level || is.Findings[i].Advice != advice) {
			t.Errorf("%s: %q finds %+v\n%s", what, args, is.Findings, stderr)
		}
	}
	checked("without kube-router", "", "", "check")

	tainted := testenv.Node{InstanceID: "i-0123456789abcdef7", Zone: region + "a", Taints: []corev1.Taint{
		{Key: "scheduling.cast.ai/spot", Value: "true", Effect: corev1.TaintEffectNoSchedule}, {Key: "dedicated", Value: "batch", Effect: corev1.TaintEffectNoExecute}}}
	try(cp().CreateNodes(t.Context(), tainted))
	t.Cleanup(func() { try(deleteNode(tainted.InstanceID)) })
	annotateSystem := func(value string) {
		patch := `{"metadata": {"annotations": {"addons.k8s.io/networking.kuberouter": ` + value + `}}}`
		must(client.CoreV1().Namespaces().Patch(context.WithoutCancel(t.Context()), kubeSystem, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
	}
	annotateSystem(`"{\"version\": \"0.4.0-kops.3\"}"`)
	t.Cleanup(func() { annotateSystem("null") })
	try(cp().Apply(t.Context(), []byte(routerOfKops)))
	t.Cleanup(func() {
		try(daemonSets.Delete(context.WithoutCancel(t.Context()), "kube-router", metav1.DeleteOptions{}))
	})
	podOn := func(node string) *corev1.Pod {
		for _, p := range must(client.CoreV1().Pods(kubeSystem).List(t.Context(), metav1.ListOptions{LabelSelector: "k8s-app=kube-router"})).Items {
			if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
				return &p
			}
		}
		return nil
	}
	eventually(t, "the pods run", func() error {
		if is := must(daemonSets.Get(t.Context(), "kube-router", metav1.GetOptions{})).Status; is.NumberAvailable == 0 ||
			is.NumberAvailable != is.DesiredNumberScheduled {
			return fmt.Errorf("%+v", is)
		}
		return nil
	})
	if p := podOn(tainted.InstanceID); p != nil {
		t.Errorf("before the fix, the tainted node has the pod %s", p.Name)
	}
	checked("affected", change.Warn, "kops-spot fix kube-router", slices.Concat([]string{"check", "--pre"}, installed()[1:])...)
	checked("affected", change.Warn, "kops-spot fix kube-router", "check")

	if _, stderr, err := w.command("fix", "kube-router"); err == nil ||
		!strings.Contains(stderr,
			"+ - effect: NoSchedule\n      +   operator: Exists\n      + - effect: NoExecute\n      +   operator: Exists\n") ||
		!strings.Contains(stderr, "; kOps undoes the change if kops update cluster brings another version of the addon") ||
		!strings.Contains(stderr, "review the plan above, then add --yes") {
		t.Errorf("the plan: %v\n%s", err, stderr)
	}
	// The worker's new pod does not start, so that the command waits.
	waiting := func(reason string) {
		patch := `{"metadata": {"annotations": {"` + testenv.WaitingAnnotation + `": "` + reason + `"}}}`
		must(client.CoreV1().Nodes().Patch(t.Context(), homeWorker, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
	}
	waiting("ContainerCreating")
	var said bytes.Buffer
	fix := exec.CommandContext(t.Context(), filepath.Join(programs(), "kops-spot"), "fix", "kube-router", "--yes")
	fix.Env, fix.Stderr = w.environ(), &said
	try(fix.Start())
	eventually(t, "the tainted node's pod runs, and the worker's waits", func() error {
		on, other := podOn(tainted.InstanceID), podOn(homeWorker)
		if on == nil || on.Status.Phase != corev1.PodRunning || other == nil || len(other.Status.ContainerStatuses) == 0 ||
			other.Status.ContainerStatuses[0].State.Waiting == nil {
			return errors.New("not yet")
		}
		return nil
	})
	try(fix.Process.Signal(os.Interrupt))
	if err := fix.Wait(); err == nil || !strings.Contains(said.String(), "waiting for the rollout: ") ||
		!strings.Contains(said.String(), "it continues in the cluster; run this again to follow it") {
		t.Errorf("interrupted: %v\n%s", err, said.String())
	}
	waiting("ImagePullBackOff")
	restart := func() {
		try(client.CoreV1().Pods(kubeSystem).Delete(t.Context(), podOn(homeWorker).Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	}
	restart()
	stuck, stderr, err := w.asJSON("fix", "kube-router")
	if err == nil || stuck.Applied || len(stuck.Findings) != 1 || !strings.Contains(stuck.Findings[0].Detail,
		"ImagePullBackOff: Back-off pulling image cloudnativelabs/kube-router:v0.4.0") {
		t.Errorf("a pod that does not start: %v: %+v\n%s", err, stuck, stderr)
	}
	waiting("")
	restart()
	fixed := must(daemonSets.Get(t.Context(), "kube-router", metav1.GetOptions{}))
	again, stderr, err := w.asJSON("fix", "kube-router")
	if is := must(daemonSets.Get(t.Context(), "kube-router", metav1.GetOptions{})); err != nil || again.Applied || !again.Plan.Empty() ||
		is.Generation != fixed.Generation ||
		!strings.HasSuffix(again.Findings[0].Detail, " pods are updated and available") {
		t.Errorf("fixed again: %v: %+v\n%s", err, again, stderr)
	}
	tolerations := fixed.Spec.Template.Spec.Tolerations
	if len(tolerations) != 6 || tolerations[3].Key != "theirs" || *tolerations[3].TolerationSeconds != 9 ||
		tolerations[4] != (corev1.Toleration{Operator: "Exists", Effect: "NoSchedule"}) ||
		tolerations[5] != (corev1.Toleration{Operator: "Exists", Effect: "NoExecute"}) {
		t.Errorf("the tolerations are %+v", tolerations)
	}
	checked("fixed", change.OK, "", "check")
}
