package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// The attach-detach controller force-detaches the volumes of a lost node after six minutes, as in a default cluster.
// Any volume that detaches within seconds here was released by the handler.

// stateful creates a StatefulSet of one pod with a volume, and returns the pod when it is Ready.
func (r *fixture) stateful(a app, annotations ...string) corev1.Pod {
	r.Helper()
	(&realWorld{fixture: r}).disk("data-" + a.name + "-0")
	t := r.template(a)
	for _, annotation := range annotations {
		key, value, _ := strings.Cut(annotation, "=")
		t.Annotations[key] = value
	}
	one := int32(1)
	claim := corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	_, err := r.client.AppsV1().StatefulSets(r.namespace).Create(r.Context(),
		&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: a.name},
			Spec: appsv1.StatefulSetSpec{Replicas: &one, ServiceName: a.name,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}},
				Template: t, VolumeClaimTemplates: []corev1.PersistentVolumeClaim{claim}}}, metav1.CreateOptions{})
	must(r, err)
	r.waitReady(a.name, 1)
	return r.only(a.name)
}

// pinWithVolumes creates one pod without an owner on each node, with a volume of the same name, and waits until all are
// Ready. It binds the claims first: if the attach-detach controller sees a pod before its volume is bound, it checks
// again only minutes later.
func (r *fixture) pinWithVolumes(nodes map[string]string) map[string]corev1.Pod {
	r.Helper()
	for name := range nodes {
		(&realWorld{fixture: r}).disk(name)
	}
	for name := range nodes {
		r.eventually("the claim "+name+" to be bound", func() bool {
			claim, err := r.client.CoreV1().PersistentVolumeClaims(r.namespace).Get(r.Context(), name,
				metav1.GetOptions{})
			return err == nil && claim.Status.Phase == corev1.ClaimBound
		})
	}
	pods := map[string]corev1.Pod{}
	for name, node := range nodes {
		t := r.template(app{name: name})
		t.Spec.NodeName = node
		claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}
		t.Spec.Volumes = []corev1.Volume{{Name: "data",
			VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}}}
		pods[name] = r.createPod(name, t)
	}
	for name := range nodes {
		r.waitReady(name, 1)
	}
	return pods
}

// attached returns the sorted names of the volumes that are attached to a node.
func (r *fixture) attached(node string) (volumes []string) {
	r.Helper()
	all, err := r.client.StorageV1().VolumeAttachments().List(r.Context(), metav1.ListOptions{})
	must(r, err)
	for _, a := range all.Items {
		if a.Spec.NodeName == node && a.Status.Attached {
			volumes = append(volumes, *a.Spec.Source.PersistentVolumeName)
		}
	}
	slices.Sort(volumes)
	return volumes
}

// lose powers the instance off and sets its state in EC2.
func (r *fixture) lose(instance, state string) {
	r.Helper()
	must(r, r.cp.PowerOff(r.Context(), instance))
	r.aws.SetState(instance, state)
}

// changed is EC2's state change event for an instance.
func (r *fixture) changed(instance, state string) []byte {
	r.Helper()
	name := "state-change-" + state
	return r.sample(name, 0, map[string]string{instancesIn(readSample(r.T, name))[0]: instance})
}

// runsElsewhere fails unless the successor of a pod runs on the node with its volume, was started once and has not been
// terminated.
func (r *fixture) runsElsewhere(before corev1.Pod, node string) {
	r.Helper()
	now := r.only(before.Labels["app"])
	if now.UID == before.UID || now.Name != before.Name || now.Spec.NodeName != node || now.DeletionTimestamp != nil {
		r.Errorf("%s runs on %s, deletion timestamp %v; want its successor on %s", now.Name, now.Spec.NodeName,
			now.DeletionTimestamp, node)
	}
	if volume := r.namespace + "-data-" + now.Name; !slices.Contains(r.attached(node), volume) {
		r.Errorf("the volume of %s is not on %s: %v", now.Name, node, r.attached(node))
	}
	all, err := r.cp.KubeletLog()
	must(r, err)
	var seen []testenv.KubeletEvent
	for _, rec := range all {
		if rec.Namespace == r.namespace && rec.Pod == before.Name && rec.UID != string(before.UID) {
			seen = append(seen, rec.Event)
		}
	}
	if !slices.Equal(seen, []testenv.KubeletEvent{testenv.PodStarted, testenv.PodReady}) {
		r.Errorf("the successors of %s were %v; want one that started and became Ready", before.Name, seen)
	}
}

// byName is the time to wait for controllers that delete pods by name, such as taint eviction. They act a moment late.
const byName = 3 * time.Second

// TestCleanUpAfterTermination: the instance of a running pod and that of a terminating pod end, each with a volume. The
// successors run on another node within seconds, and the old nodes are deleted.
func TestCleanUpAfterTermination(t *testing.T) {
	r := newFixture(t)
	var victims []string
	var pods []corev1.Pod
	for _, a := range []app{{name: "db"}, {name: "queue", grace: 2 * time.Hour, exit: time.Hour}} {
		victim := r.targets(1)[0].id
		pods, victims = append(pods, r.stateful(a)), append(victims, victim)
		r.patchNode(victim, `{"spec":{"unschedulable":true}}`) // the next pod goes to another node
	}
	other := r.targets(1)[0].id
	r.delete("queue-0")
	r.record("queue-0", testenv.PodSigTerm)
	s := r.service()
	var ended []<-chan fakelambda.Result
	for _, victim := range victims {
		r.lose(victim, "terminated")
		if held := r.attached(victim); len(held) != 1 {
			t.Fatalf("the instance ended with the volumes %v, want one", held)
		}
		ended = append(ended, r.send(s, r.changed(victim, "terminated")))
	}
	for i, victim := range victims {
		out := r.outcome(<-ended[i], spot.CleanedUp)
		if got := r.podResult(out, pods[i]); got.Status != spot.PodDeleted {
			t.Errorf("%+v", got)
		}
		if rel := out.Cleanup; out.Node != victim || rel.Tainted == nil || rel.PodsDeleted == nil ||
			rel.VolumesDetached == nil || rel.NodeDeleted == nil || len(out.Problems) != 0 {
			t.Errorf("%+v, %q", rel, out.Problems)
		}
		if _, err := r.client.CoreV1().Nodes().Get(t.Context(), victim,
			metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the node is still there: %v", err)
		}
		if held := r.attached(victim); len(held) != 0 {
			t.Errorf("the terminated instance still has %v", held)
		}
	}
	r.waitReady("db", 1)
	r.waitReady("queue", 1)
	time.Sleep(byName)
	for i, victim := range victims {
		r.runsElsewhere(pods[i], other)
		if did, want := r.did(victim, pods[i].Name),
			[]string{"patch nodes", "delete pods", "delete nodes"}; !slices.Equal(did, want) {
			t.Errorf("the handler did %q, want %q", did, want)
		}
	}
}

// TestCleanUpOfDeletedNode: the cloud controller deletes the node of a terminated instance before the event arrives.
// Its pod is replaced at once, not by the pod garbage collector.
func TestCleanUpOfDeletedNode(t *testing.T) {
	r := newFixture(t)
	victim := r.targets(1)[0].id
	r.deploy(app{name: "web", replicas: 1})
	r.waitReady("web", 1)
	pod := r.only("web")
	r.lose(victim, "terminated")
	must(t, r.client.CoreV1().Nodes().Delete(t.Context(), victim, metav1.DeleteOptions{}))
	s := r.service()
	time.Sleep(1100 * time.Millisecond) // the pod is older than the event
	out := r.outcome(r.invoke(s, r.changed(victim, "terminated")), spot.CleanedUp)
	if got := r.podResult(out, pod); got.Status != spot.PodDeleted || out.Cleanup.PodsDeleted == nil || out.Cleanup.Tainted != nil {
		t.Errorf("%+v, %+v", got, out.Cleanup)
	}
	if did := r.did(victim, pod.Name); !slices.Equal(did, []string{"delete pods"}) {
		t.Errorf("the handler did %q, want one deletion", did)
	}
}

// awaitCheck waits until the cloud controller asks EC2 about the instance again. It does so every 5 s.
func (r *fixture) awaitCheck(instance string) {
	r.Helper()
	since := time.Now()
	r.eventually("the cloud controller to check "+instance, func() bool {
		return slices.ContainsFunc(r.aws.Calls("DescribeInstances"), func(c spottest.AWSCall) bool {
			return c.Time.After(since) && slices.Contains(c.IDs, instance)
		})
	})
}

// TestCleanUpWithCloudController: kubelets report their nodes NotReady and stop their pods when two instances shut
// down. On one the clean-up comes first, on the other the cloud controller.
func TestCleanUpWithCloudController(t *testing.T) {
	r := newFixture(t)
	r.watched = true
	s := r.service()
	victims := map[spot.NodeDeletedBy]string{}
	pods := map[spot.NodeDeletedBy]corev1.Pod{}
	for first, name := range map[spot.NodeDeletedBy]string{
		spot.DeletedByKopsSpot: "db", spot.DeletedByCloudController: "queue"} {
		victims[first] = r.targets(1)[0].id
		pods[first] = r.stateful(app{name: name})
		r.patchNode(victims[first], `{"spec":{"unschedulable":true}}`) // the next pod goes to another node
	}
	late := victims[spot.DeletedByCloudController]
	web := r.template(app{name: "web"})
	web.Spec.NodeName = late
	r.createPod("web", web)
	r.waitReady("web", 1)
	r.targets(1)

	down := make(chan error)
	for _, victim := range victims {
		go func() { down <- r.cp.ShutDown(t.Context(), victim, 20*time.Second, 10*time.Second) }()
	}
	must(t, <-down)
	must(t, <-down)
	if p := r.only("web"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Terminated" {
		t.Errorf("web is %s, %q; want it stopped by its kubelet", p.Status.Phase, p.Status.Reason)
	}
	for first, victim := range victims {
		if testenv.NodeReady(r.getNode(victim)) {
			t.Errorf("node %s is still Ready", victim)
		}
		r.eventually("the next pod of the StatefulSet", func() bool {
			now := r.pods("app=" + pods[first].Labels["app"])
			return len(now) == 1 && now[0].UID != pods[first].UID
		})
		if held := r.attached(victim); len(held) != 1 {
			t.Fatalf("%s ended with the volumes %v, want one", victim, held)
		}
		r.aws.SetState(victim, "shutting-down")
	}
	ended := map[spot.NodeDeletedBy]<-chan fakelambda.Result{}
	early := victims[spot.DeletedByKopsSpot]
	r.awaitCheck(early)
	if !r.nodeExists(early) {
		t.Fatal("the cloud controller deleted the node of an instance that was still shutting down")
	}
	r.aws.SetState(early, "terminated")
	ended[spot.DeletedByKopsSpot] = r.send(s, r.changed(early, "terminated"))
	r.aws.SetState(late, "terminated")
	r.eventually("the cloud controller to delete the node", func() bool { return !r.nodeExists(late) })
	ended[spot.DeletedByCloudController] = r.send(s, r.changed(late, "terminated"))

	out := r.outcome(<-ended[spot.DeletedByKopsSpot], spot.CleanedUp)
	switch c := out.Cleanup; {
	case c.Tainted != nil && c.VolumesDetached != nil && c.NodeDeletedBy != "" && len(out.Problems) == 0:
		r.waitReady("db", 1)
	case c.NodeDeletedBy == spot.DeletedByCloudController && len(out.AttachedVolumes) == 1 && len(out.Problems) == 1:
		t.Log("this machine was too busy: the cloud controller checked again, after 5 s, before the volume was detached")
	default:
		t.Errorf("%+v, %q, %q", c, out.AttachedVolumes, out.Problems)
	}
	out = r.outcome(<-ended[spot.DeletedByCloudController], spot.CleanedUp)
	if c := out.Cleanup; c.Tainted != nil || c.PodsDeleted == nil || c.NodeDeletedBy != spot.DeletedByCloudController ||
		len(out.AttachedVolumes) != 1 || len(out.Problems) != 1 {
		t.Errorf("%+v, %q, %q; want the waiting volume reported", c, out.AttachedVolumes, out.Problems)
	}
	if left := r.pods("app=web"); len(left) > 0 {
		t.Errorf("web is still there: %v", left[0].Status)
	}
	for _, victim := range victims {
		if r.nodeExists(victim) {
			t.Errorf("node %s is still there", victim)
		}
	}
}

func (r *fixture) nodeExists(name string) bool {
	r.Helper()
	_, err := r.client.CoreV1().Nodes().Get(r.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		must(r, err)
	}
	return err == nil
}

// TestCleanUpOfReusedName: another instance has the name of a deleted node when the event arrives. Nothing of it is
// changed.
func TestCleanUpOfReusedName(t *testing.T) {
	r := newFixture(t)
	s := r.service()
	for i, byAddress := range []bool{true, false} {
		old, next := r.instance(), r.instance()
		name, deletedBy := old.ID, spot.DeletedByCloudController
		if byAddress { // nobody knows: nothing is found under the old node's name
			deletedBy = ""
			name = "ip-" + strings.ReplaceAll(old.PrivateIP, ".", "-") + ".ec2.internal"
		}
		r.aws.SetState(old.ID, "terminated")
		must(t, r.register(next, name))
		pod := r.pinWithVolumes(map[string]string{fmt.Sprintf("reused-%d", i): name})[fmt.Sprintf("reused-%d", i)]
		before := r.getNode(name)
		time.Sleep(1100 * time.Millisecond) // the pod is older than the event
		out := r.outcome(r.invoke(s, r.changed(old.ID, "terminated")), spot.CleanedUp)
		if out.Cleanup.NodeDeletedBy != deletedBy || len(out.Pods)+len(out.AttachedVolumes) > 0 {
			t.Errorf("%s: %+v, %+v, %q", name, out.Cleanup, out.Pods, out.AttachedVolumes)
		}
		if now := r.getNode(name); fmt.Sprint(now.UID, now.Labels, now.Annotations, now.Spec) !=
			fmt.Sprint(before.UID, before.Labels, before.Annotations, before.Spec) {
			t.Errorf("%s: the node is %+v, was %+v", name, now, before)
		}
		if now := r.only(pod.Name); now.UID != pod.UID || now.DeletionTimestamp != nil || len(r.attached(name)) != 1 {
			t.Errorf("%s: the pod of the new instance was changed", name)
		}
	}
}

// did returns the handler's writes to a node and one of its pods, in order.
func (r *fixture) did(node, pod string) (changes []string) {
	r.Helper()
	for _, q := range r.requests(node) {
		if (q.Name == node || q.Name == pod) && !slices.Contains([]string{"get", "list", "watch"}, q.Verb) {
			changes = append(changes, q.Verb+" "+q.Resource)
		}
	}
	return changes
}

// TestCleanUpAfterStop: the pods of a stopped instance run elsewhere. When the instance starts again, its node is
// restored.
func TestCleanUpAfterStop(t *testing.T) {
	r := newFixture(t)
	i := r.aws.AddInstance(spottest.Instance{Spot: true,
		Tags: map[string]string{spot.TagCluster: cluster}}) // instances in a group do not stop
	victim := target{id: i.ID}
	r.join(victim)
	db := r.stateful(app{name: "db"}, "kops-spot.cast.ai/drain=never")
	r.daemon("logs")
	other := r.targets(1)[0].id
	before := r.getNode(victim.id)
	s := r.service()
	r.outcome(r.invoke(s, r.encode(r.warning(spot.SpotStop, victim.id, 0))), spot.Drained)
	r.lose(victim.id, "stopped")
	out := r.outcome(r.invoke(s, r.changed(victim.id, "stopped")), spot.CleanedUp)
	if got := r.podResult(out, db); got.Status != spot.PodDeleted || out.Cleanup.NodeDeleted != nil {
		t.Errorf("%+v, %+v", got, out.Cleanup)
	}
	stopped := r.getNode(victim.id)
	outOfService := corev1.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown",
		Effect: corev1.TaintEffectNoExecute}
	if !slices.Contains(stopped.Spec.Taints, outOfService) || stopped.UID != before.UID || !stopped.Spec.Unschedulable {
		t.Errorf("the node of the stopped instance is %+v", stopped.Spec)
	}
	if held := r.attached(victim.id); len(held) != 0 {
		t.Errorf("the stopped instance still has %v", held)
	}
	r.waitReady("db", 1)

	r.aws.SetInstanceTimes(spottest.InstanceTimes{Start: time.Second})
	r.aws.StartInstance(victim.id)
	r.eventually("the instance to run", func() bool {
		now, _ := r.aws.Instance(victim.id)
		return now.State == "running"
	})
	must(t, r.cp.PowerOn(t.Context(), victim.id))
	r.outcome(r.invoke(s, r.changed(victim.id, "running")), spot.Recovered)
	after := r.getNode(victim.id)
	state := func(n *corev1.Node) string {
		return fmt.Sprint(n.UID, n.Labels, n.Annotations, n.Spec.Taints, n.Spec.Unschedulable)
	}
	if state(after) != state(before) {
		t.Errorf("it returned as\n%s, was\n%s", state(after), state(before))
	}
	here := r.template(app{name: "here"})
	here.Spec.NodeSelector = map[string]string{corev1.LabelHostname: victim.id}
	r.createPod("here", here)
	r.waitReady("here", 1)
	r.waitReady("logs", 2)
	r.runsElsewhere(db, other)
}

// kept is an instance whose node, pods and volumes must not be cleaned up.
type kept struct {
	event, state string
	warned       spot.Kind // before; empty: no warning
	instance     func(*spottest.Instance)
	label        string // of its node
	because      string
	target
}

// TestNoCleanUp: the function releases no pod, volume or node if the instance may still be running, may resume with its
// pods in memory or was stopped without a warning, or if it runs the control plane.
func TestNoCleanUp(t *testing.T) {
	onDemand := func(i *spottest.Instance) { i.Spot = false }
	all := map[string]*kept{
		"stopping": {event: "stopping", state: "stopping", warned: spot.SpotStop, because: "is stopping"},
		"shutting-down": {event: "shutting-down", state: "shutting-down", warned: spot.SpotTerminate,
			because: "is shutting-down"},
		"operators": {event: "stopped", state: "stopped", instance: onDemand, because: "without a warning"},
		"asleep": {event: "stopped", state: "stopped", warned: spot.SpotHibernate,
			instance: func(i *spottest.Instance) { i.Hibernates = true }, because: "may be hibernated"},
		"ended-on-demand": {event: "terminated", state: "terminated", instance: onDemand,
			because: "not a Spot instance"}, // whatever the node's label says
		"control-plane": {event: "terminated", state: "terminated", warned: spot.SpotTerminate,
			instance: func(i *spottest.Instance) { i.Tags = map[string]string{"k8s.io/role/control-plane": "1"} },
			because:  "control-plane node"},
		"stopped-master": {event: "stopped", state: "stopped", warned: spot.SpotStop,
			label: "node-role.kubernetes.io/control-plane", because: "control-plane node"},
		"ended-api-server": {event: "terminated", state: "terminated", label: "node-role.kubernetes.io/apiserver",
			because: "control-plane node"},
	}
	r := newFixture(t)
	s := r.service()
	warned := map[string]<-chan fakelambda.Result{}
	for name, c := range all {
		change := func(*spottest.Instance) {}
		if c.instance != nil {
			change = c.instance
		}
		c.target = target{r.instance(change).ID, r.group}
		if i, _ := r.aws.Instance(c.id); i.Tags[spot.TagCluster] != cluster {
			t.Fatalf("%s: the instance is not the cluster's: %v", name, i.Tags)
		}
	}
	var targets []target
	for _, c := range all {
		targets = append(targets, c.target)
	}
	r.join(targets...)
	for name, c := range all {
		if c.label != "" {
			r.label(c.id, c.label, "")
		}
		if c.warned != "" {
			warned[name] = r.send(s, r.encode(r.warning(c.warned, c.id, 0)))
		}
	}
	for _, ended := range warned {
		r.outcome(<-ended, spot.Drained)
	}
	on := map[string]string{}
	for name, c := range all {
		on[name] = c.id
	}
	pods := r.pinWithVolumes(on)
	nodes := map[string]*corev1.Node{}
	for name, c := range all {
		r.lose(c.id, c.state)
		nodes[name] = r.getNode(c.id)
	}
	for name, c := range all {
		if out := r.outcome(r.invoke(s, r.changed(c.id, c.event)), spot.Ignored); !strings.Contains(out.Reason,
			c.because) || out.Cleanup != nil {
			t.Errorf("%s: %q does not say %q: %+v", name, out.Reason, c.because, out.Cleanup)
		}
	}
	time.Sleep(byName)
	for name, c := range all {
		now, was := r.getNode(c.id), nodes[name]
		if fmt.Sprint(now.UID, now.Labels, now.Annotations, now.Spec) != fmt.Sprint(was.UID, was.Labels,
			was.Annotations, was.Spec) {
			t.Errorf("%s: the node is %+v, was %+v", name, now.Spec, was.Spec)
		}
		if p := r.only(name); p.UID != pods[name].UID || p.DeletionTimestamp != nil {
			t.Errorf("%s: the pod was deleted", name)
		}
		if held := r.attached(c.id); len(held) != 1 {
			t.Errorf("%s: the instance has the volumes %v, want one", name, held)
		}
	}
}
