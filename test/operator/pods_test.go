package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/castai/kops-spot/test/testenv"
)

const daemonName = "aws-iam-authenticator"

// daemonPods are the pods of the authenticator's DaemonSet. The fake kubelet runs no containers, so the tests start the
// authenticator again for each new pod, with the pod's backend modes and mounted file.
type daemonPods struct {
	mu   sync.Mutex
	runs string // UID of the pod as which the authenticator runs
	done chan struct{}
	err  error
}

// daemon belongs to the current test.
var daemon *daemonPods

// startDaemon creates the master for the DaemonSet and runs its pods until the test ends.
func startDaemon(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &daemonPods{done: make(chan struct{})}
	daemon = p
	go func() {
		defer close(p.done)
		p.err = p.follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if <-p.done; p.err != nil {
			t.Error(p.err)
		}
	})
	const master = "i-0123456789abcdef0"
	try(cp().CreateNodes(t.Context(), testenv.Node{InstanceID: master, Zone: region + "a", Labels: map[string]string{"node-role.kubernetes.io/control-plane": ""}}))
	t.Cleanup(func() { try(deleteNode(master)) })
}

func (p *daemonPods) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
		newest, err := newestPod(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case newest == nil || string(newest.UID) == p.running():
			continue
		}
		if err := runAuthenticator(ctx, newest); err != nil && ctx.Err() == nil {
			return err
		}
		p.mu.Lock()
		p.runs = string(newest.UID)
		p.mu.Unlock()
	}
}

func (p *daemonPods) running() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs
}

func newestPod(ctx context.Context) (*corev1.Pod, error) {
	list, err := cp().Client().CoreV1().Pods(kubeSystem).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=" + daemonName})
	if err != nil {
		return nil, err
	}
	alive := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || p.Spec.NodeName == "" })
	if len(alive) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(alive, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return &newest, nil
}

// runAuthenticator starts the authenticator of a pod.
func runAuthenticator(ctx context.Context, pod *corev1.Pod) error {
	var mode string
	for _, arg := range pod.Spec.Containers[0].Args {
		if m, ok := strings.CutPrefix(arg, "--backend-mode="); ok {
			mode = m
		}
	}
	mappings, err := mountedMappings(ctx)
	if err != nil {
		return err
	}
	return cp().auth.Restart(ctx, func(o *testenv.AuthenticatorOptions) {
		o.Mode, o.Kubeconfig, o.Mappings = mode, cp().Kubeconfig(), mappings
	})
}

// mountedMappings reads the mounted file like the authenticator, which ignores the case of keys.
func mountedMappings(ctx context.Context) (all []testenv.Mapping, err error) {
	list, err := cp().Client().CoreV1().ConfigMaps(kubeSystem).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + daemonName})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	var file struct {
		ClusterID string
		Server    struct {
			MapRoles, MapUsers []struct {
				RoleARN, UserARN, Username string
				Groups                     []string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(list.Items[0].Data["config.yaml"]), &file); err != nil {
		return nil, err
	}
	if file.ClusterID != cluster {
		return nil, fmt.Errorf("the file has the cluster ID %q", file.ClusterID)
	}
	for _, m := range slices.Concat(file.Server.MapRoles, file.Server.MapUsers) {
		all = append(all, testenv.Mapping{ARN: m.RoleARN + m.UserARN, Username: m.Username, Groups: m.Groups})
	}
	return all, nil
}

// authenticator creates an authenticator with a mode and waits until it runs.
func authenticator(t *testing.T, mode string) {
	t.Helper()
	eventually(t, "the old authenticator is gone", func() error {
		if pod, err := newestPod(t.Context()); err != nil || pod != nil {
			return errors.Join(err, errors.New("there is a pod"))
		}
		return nil
	})
	createDaemonSet(t, mode)
	settled(t)
}

// createDaemonSet creates the authenticator's DaemonSet as kOps does, with a mounted file only if the mode requires it.
// Without a master, it has no pods.
func createDaemonSet(t *testing.T, mode string) {
	t.Helper()
	args := []string{"server", "--state-dir=/var/aws-iam-authenticator", "--kubeconfig-pregenerated=true"}
	volumes := []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/kubernetes/aws-iam-authenticator/"}}}}
	if mode == "" || strings.Contains(mode, testenv.MountedFile) {
		args = append(args, "--config=/etc/aws-iam-authenticator/config.yaml")
		volumes = append(volumes, corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: daemonName}}}})
	} else {
		args = append(args, "--cluster-id="+cluster)
	}
	if mode != "" {
		args = append(args, "--backend-mode="+mode)
	}
	labels := map[string]string{"k8s-app": daemonName}
	daemonSets := cp().Client().AppsV1().DaemonSets(kubeSystem)
	eventually(t, "the DaemonSet is made", func() error { // an old one may be there for a moment
		_, err := daemonSets.Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: daemonName, Labels: labels},
			Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec: corev1.PodSpec{HostNetwork: true, Volumes: volumes, TerminationGracePeriodSeconds: new(int64(1)),
						NodeSelector: map[string]string{"node-role.kubernetes.io/control-plane": ""},
						Containers:   []corev1.Container{{Name: daemonName, Image: daemonName, Args: args}}}}},
		}, metav1.CreateOptions{})
		return err
	})
	t.Cleanup(func() { try(daemonSets.Delete(context.WithoutCancel(t.Context()), daemonName, metav1.DeleteOptions{})) })
}

// settled waits until the authenticator of the DaemonSet's newest pod runs.
func settled(t *testing.T) {
	t.Helper()
	eventually(t, "the authenticator runs", func() error {
		pod, err := newestPod(t.Context())
		if err == nil && (pod == nil || string(pod.UID) != daemon.running()) {
			err = errors.New("it is not the newest pod")
		}
		return err
	})
}

func eventually(t *testing.T, what string, so func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		last = so()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v; last: %v", what, err, last)
	}
}
