package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/bench/contender"
	"github.com/castai/kops-spot/test/bench/figures"
	"github.com/castai/kops-spot/test/bench/report"
	"github.com/castai/kops-spot/test/testenv"
)

// wreck is a machine that is no more, and how long others take to see to what it held.
type wreck struct {
	unmount time.Duration // until the attach-detach controller takes a volume from a node by force; Kubernetes' own is 6 min
	cloud   time.Duration // until the cloud controller, for which the benchmark stands in, deletes the Node
	rounds  int           // of kops-spot
	others  bool          // the others are looked at too, once each: they take minutes
}

// survivor is one way to see to what a machine that is no more has held.
type survivor struct {
	name   string
	ending bool // the pod was told to end before its machine ended
	rounds int
	act    func(r *ruin, ctx context.Context) error
}

// aftermath is a StatefulSet's pod with a volume, whose machine has ended without a word: how long until the next one runs?
func (b *bench) aftermath(ctx context.Context) (_ []report.Table, err error) {
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{Log: b.log, MaxWaitForUnmount: b.wreck.unmount})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	if err := cp.Apply(ctx, deploy.RBAC); err != nil {
		return nil, err
	}
	all := []survivor{{name: "kops-spot, told that the instance is terminated", rounds: b.wreck.rounds, act: (*ruin).handled},
		{name: "the same, of a pod that was ending already", ending: true, rounds: b.wreck.rounds, act: (*ruin).handled}}
	if b.wreck.others {
		all = append(all, survivor{name: "the pod is deleted by force, as by kubectl delete --force", rounds: 1, act: (*ruin).deletePod},
			survivor{name: fmt.Sprintf("nothing is done; the Node is deleted after %s", b.wreck.cloud), rounds: 1, act: func(r *ruin, ctx context.Context) error {
				time.Sleep(b.wreck.cloud)
				return r.deleteNode(ctx)
			}}, survivor{name: "the Node is deleted at once", rounds: 1, act: (*ruin).deleteNode})
	}
	t := report.Table{Title: fmt.Sprintf("a StatefulSet's pod with a volume, whose machine has ended; volumes are taken by force after %s, where Kubernetes' own is 6 min", b.wreck.unmount),
		Columns: []report.Column{{Name: "the next one is Ready after", Unit: report.Seconds}}}
	ruins := 0
	for _, s := range all {
		var times []float64
		for range s.rounds {
			took, err := (&ruin{cp: cp, name: fmt.Sprintf("ruin-%d", ruins), number: ruins, zone: "us-east-1a"}).play(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			ruins++
			fmt.Fprintf(b.log, "%s aftermath, %s: %.2f s\n", time.Now().Format(time.TimeOnly), s.name, took.Seconds())
			times = append(times, took.Seconds())
		}
		t.Rows = append(t.Rows, report.Row{Name: s.name, Cells: []float64{figures.Median(times)}})
	}
	return []report.Table{t}, nil
}

// ruin is one trial, in a namespace and on nodes of its own.
type ruin struct {
	cp         *testenv.ControlPlane
	name, zone string
	number     int
	victim     testenv.Node
}

// play sets the scene, ends the machine, and measures from then to the next pod's being Ready.
func (r *ruin) play(ctx context.Context, s survivor) (time.Duration, error) {
	old, err := r.set(ctx)
	if err != nil {
		return 0, err
	}
	name := r.victim.Object().Name
	// As after a warning: what is not cordoned may get the next pod, for Kubernetes believes in it for most of a minute.
	if _, err := r.cp.Client().CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		return 0, err
	}
	if s.ending {
		if err := r.cp.Client().CoreV1().Pods(r.name).Delete(ctx, "db-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64(600))}); err != nil {
			return 0, err
		}
	}
	if err := r.cp.PowerOff(ctx, name); err != nil {
		return 0, err
	}
	time.Sleep(time.Second) // the kubelet has to see it
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	began := time.Now()
	acted := make(chan error, 1)
	go func() { acted <- s.act(r, ctx) }()
	if _, err := r.ready(ctx, old); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, <-acted
}

// set makes a node with the pod and its volume, and another for the next pod; it returns the pod's UID.
func (r *ruin) set(ctx context.Context) (uid string, err error) {
	client := r.cp.Client()
	if err := r.cp.CreateNamespace(ctx, r.name); err != nil {
		return "", err
	}
	node := func(i int) testenv.Node {
		return testenv.Node{InstanceID: fmt.Sprintf("i-%017x", 0xdead000+i), Zone: r.zone, PrivateIP: fmt.Sprintf("10.9.0.%d", i), Labels: map[string]string{"ruin": r.name}}
	}
	r.victim = node(2*r.number + 1)
	if err := r.cp.CreateNodes(ctx, r.victim); err != nil {
		return "", err
	}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err = client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: r.name},
		Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: "vol-" + r.name}}}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	_, err = client.CoreV1().PersistentVolumeClaims(r.name).Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: r.name, StorageClassName: new(""), Resources: corev1.VolumeResourceRequirements{Requests: size}}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	labels := map[string]string{"app": "db"}
	_, err = client.AppsV1().StatefulSets(r.name).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: new(int32(1)), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{testenv.ExitAfterAnnotation: "10m"}}, Spec: corev1.PodSpec{NodeSelector: map[string]string{"ruin": r.name},
			Containers: []corev1.Container{{Name: "main", Image: "example/db"}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}}}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	if uid, err = r.ready(ctx, ""); err != nil {
		return "", err
	}
	return uid, r.cp.CreateNodes(ctx, node(2*r.number+2))
}

// ready waits until the pod is Ready that is not the old one, and returns its UID.
func (r *ruin) ready(ctx context.Context, old string) (uid string, err error) {
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		p, err := r.cp.Client().CoreV1().Pods(r.name).Get(ctx, "db-0", metav1.GetOptions{})
		if err != nil || string(p.UID) == old || p.DeletionTimestamp != nil {
			return false, nil
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				uid = string(p.UID)
				return true, nil
			}
		}
		return false, nil
	})
	return uid, err
}

func (r *ruin) deletePod(ctx context.Context) error {
	return r.cp.Client().CoreV1().Pods(r.name).Delete(ctx, "db-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

func (r *ruin) deleteNode(ctx context.Context) error {
	return r.cp.Client().CoreV1().Nodes().Delete(ctx, r.victim.Object().Name, metav1.DeleteOptions{})
}

// handled has kops-spot handle the event that the instance is terminated.
func (r *ruin) handled(ctx context.Context) error {
	token, err := r.cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", time.Hour)
	if err != nil {
		return err
	}
	cluster, err := kube.New(r.cp.TokenConfig(token))
	if err != nil {
		return err
	}
	const name, region = "prod.example.com", "us-east-1"
	account := sim.NewAWS(region)
	account.AddInstance(sim.Instance{ID: r.victim.InstanceID, Spot: true, Zone: r.zone, Tags: map[string]string{spot.TagCluster: name}})
	account.SetState(r.victim.InstanceID, "terminated")
	account.Delay(sim.AnyOperation, contender.AWSCall)
	h := &spot.Handler{Cluster: cluster, Cloud: account.Cloud(), Policy: spot.DefaultPolicy(name)}
	out, err := h.Handle(ctx, spot.Interruption{EventID: r.name, Kind: spot.StateChange, State: "terminated", Instance: r.victim.InstanceID, Region: region, Time: time.Now()})
	if err == nil && out.Result != spot.Released {
		err = fmt.Errorf("the outcome is %s: %s", out.Result, out.Reason)
	}
	return err
}
