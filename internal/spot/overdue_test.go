package spot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// warned is a leftover of which everything says that its instance may be ended, and the moment at which it may.
func warned() (spot.Leftover, time.Time) {
	deadline := eventTime.Add(2 * time.Minute)
	n := spot.Cordon(node(instance), warning(spot.SpotTerminate), deadline)
	i := spot.Instance{ID: instance, State: "running", Spot: true, Launched: eventTime.Add(-time.Hour), Tags: map[string]string{
		spot.TagCluster: cluster, spot.TagDetached: group, spot.TagInterruptedAt: eventTime.Format(time.RFC3339)}}
	pods := []spot.Pod{
		{Namespace: "kube-system", Name: "logs", Owner: spot.Owner{Kind: "DaemonSet", Name: "logs"}},
		{Namespace: "kube-system", Name: "kube-proxy", Mirror: true},
		{Namespace: "default", Name: "job", Finished: true},
	}
	return spot.Leftover{Node: n, Instance: i, Since: deadline, MembershipErr: fmt.Errorf("asking: %w", spot.ErrNotFound), Pods: pods}, deadline.Add(15 * time.Minute)
}

func TestALeftoverMayBeEnded(t *testing.T) {
	if l, now := warned(); spot.DefaultPolicy(cluster).KeepsInstance(l, now) != "" {
		t.Errorf("it is kept: %s", spot.DefaultPolicy(cluster).KeepsInstance(l, now))
	}
}

// TestOneDoubtKeepsAnInstance: each condition is needed, whatever the others say.
func TestOneDoubtKeepsAnInstance(t *testing.T) {
	for name, c := range map[string]struct {
		doubt func(l *spot.Leftover, now *time.Time)
		want  string
	}{
		"another cluster's":       {func(l *spot.Leftover, _ *time.Time) { l.Instance.Tags[spot.TagCluster] = "other.example.com" }, "belongs to the cluster other.example.com"},
		"not kOps'":               {func(l *spot.Leftover, _ *time.Time) { delete(l.Instance.Tags, spot.TagCluster) }, "no tag KubernetesCluster"},
		"a bastion":               {func(l *spot.Leftover, _ *time.Time) { l.Instance.Tags["k8s.io/role/bastion"] = "1" }, "bastion"},
		"a control plane's tag":   {func(l *spot.Leftover, _ *time.Time) { l.Instance.Tags["k8s.io/role/control-plane"] = "1" }, "control plane"},
		"a control plane's label": {func(l *spot.Leftover, _ *time.Time) { l.Node.Labels["node-role.kubernetes.io/control-plane"] = "" }, "control plane"},
		"another instance's node": {func(l *spot.Leftover, _ *time.Time) { l.Node.ProviderID = "aws:///us-east-1a/i-0bbbbbbbbbbbbbbb0" }, "another instance's"},
		"no marks":                {func(l *spot.Leftover, _ *time.Time) { delete(l.Node.Annotations, "kops-spot.cast.ai/marks") }, "did not pass"},
		"no deadline":             {func(l *spot.Leftover, _ *time.Time) { delete(l.Node.Annotations, "kops-spot.cast.ai/deadline") }, "did not pass"},
		"not long past":           {func(_ *spot.Leftover, now *time.Time) { *now = now.Add(-time.Second) }, "did not pass 15m0s ago"},
		"stopping":                {func(l *spot.Leftover, _ *time.Time) { l.Instance.State = "stopping" }, "is stopping"},
		"shutting down":           {func(l *spot.Leftover, _ *time.Time) { l.Instance.State = "shutting-down" }, "is shutting-down"},
		"an on-demand instance":   {func(l *spot.Leftover, _ *time.Time) { l.Instance.Spot = false }, "no Spot instance"},
		"surged by kOps":          {func(l *spot.Leftover, _ *time.Time) { delete(l.Instance.Tags, spot.TagInterruptedAt) }, "not we who detached it"},
		"a tag that is no time":   {func(l *spot.Leftover, _ *time.Time) { l.Instance.Tags[spot.TagInterruptedAt] = "" }, "is no time"},
		"a young tag": {func(l *spot.Leftover, now *time.Time) {
			l.Instance.Tags[spot.TagInterruptedAt] = now.Add(time.Second - 10*time.Minute).Format(time.RFC3339)
		}, "less than 10m0s ago"},
		"a tag of the future": {func(l *spot.Leftover, now *time.Time) {
			l.Instance.Tags[spot.TagInterruptedAt] = now.Add(time.Hour).Format(time.RFC3339)
		}, "less than 10m0s ago"},
		"started again":  {func(l *spot.Leftover, _ *time.Time) { l.Instance.Launched = eventTime.Add(time.Second) }, "started again"},
		"opened again":   {func(l *spot.Leftover, _ *time.Time) { l.Node.Unschedulable = false }, "opened its node"},
		"in its group":   {func(l *spot.Leftover, _ *time.Time) { l.Membership = &spot.Membership{Group: group} }, "it is in the Auto Scaling group " + group},
		"a group unread": {func(l *spot.Leftover, _ *time.Time) { l.MembershipErr = errors.New("throttled") }, "not known: throttled"},
		"a group unasked": {func(l *spot.Leftover, _ *time.Time) { l.MembershipErr = nil },
			"nobody has asked whether it is in an Auto Scaling group"},
		"pods unread": {func(l *spot.Leftover, _ *time.Time) { l.PodsErr = errors.New("no answer") }, "not known: no answer"},
		"a pod": {func(l *spot.Leftover, _ *time.Time) {
			l.Pods = append(l.Pods, spot.Pod{Namespace: "default", Name: "web"})
		}, "the pod default/web is left"},
		"a pod that ends": {func(l *spot.Leftover, _ *time.Time) {
			l.Pods = append(l.Pods, spot.Pod{Name: "web", Terminating: true})
		}, "is left on it"},
	} {
		t.Run(name, func(t *testing.T) {
			l, now := warned()
			c.doubt(&l, &now)
			if why := spot.DefaultPolicy(cluster).KeepsInstance(l, now); !strings.Contains(why, c.want) {
				t.Errorf("kept because %q, want %q", why, c.want)
			}
		})
	}
}

func TestOverdue(t *testing.T) {
	l, now := warned()
	ids := func(nodes []spot.Node, instances map[string]spot.Instance, now time.Time) (found []string) {
		for _, l := range spot.Overdue(nodes, instances, now) {
			found = append(found, l.Instance.ID)
		}
		return found
	}
	running := map[string]spot.Instance{instance: l.Instance}
	if got := spot.DueInstances([]spot.Node{l.Node}, now); !slices.Equal(got, []string{instance}) {
		t.Errorf("to be asked for are %v", got)
	}
	if got := spot.Overdue([]spot.Node{l.Node}, running, now); len(got) != 1 || !got[0].Since.Equal(eventTime.Add(2*time.Minute)) {
		t.Errorf("overdue are %+v", got)
	}
	for name, n := range map[string]func(*spot.Node){
		"drained by CAST AI": func(n *spot.Node) { n.Annotations = map[string]string{} },
		"no deadline":        func(n *spot.Node) { delete(n.Annotations, "kops-spot.cast.ai/deadline") },
		"no instance":        func(n *spot.Node) { n.ProviderID = "" },
		"of another cloud":   func(n *spot.Node) { n.ProviderID = "gce://project/zone/name" },
	} {
		l, now := warned()
		n(&l.Node)
		if got := spot.DueInstances([]spot.Node{l.Node}, now); len(got) != 0 {
			t.Errorf("%s: asked for %v", name, got)
		}
		if got := ids([]spot.Node{l.Node}, map[string]spot.Instance{instance: l.Instance, "": {State: "running"}}, now); len(got) != 0 {
			t.Errorf("%s: overdue are %v", name, got)
		}
	}
	if got := ids([]spot.Node{l.Node}, running, now.Add(-time.Second)); len(got) != 0 {
		t.Errorf("overdue too early: %v", got)
	}
	for _, state := range []string{"pending", "stopping", "stopped", "shutting-down", "terminated"} {
		i := l.Instance
		i.State = state
		if got := ids([]spot.Node{l.Node}, map[string]spot.Instance{instance: i}, now); len(got) != 0 {
			t.Errorf("an instance that is %s is overdue", state)
		}
	}
	if got := ids([]spot.Node{l.Node}, nil, now); len(got) != 0 {
		t.Errorf("one that EC2 does not know is overdue")
	}
	a, b := l.Node, l.Node
	a.Name, b.Name = "a", "b"
	if got := spot.Overdue([]spot.Node{b, a}, running, now); len(got) != 2 || got[0].Node.Name != "a" {
		t.Errorf("they are told in another order: %+v", got)
	}
}

func TestALeftoverIsTold(t *testing.T) {
	l, _ := warned()
	if got := l.Told("a pod is left"); got != (spot.OverdueTold{Node: instance, Instance: instance, Since: l.Since, Kept: "a pod is left"}) {
		t.Errorf("kept: %+v", got)
	}
	if got := l.Told(""); !got.Ended || got.Kept != "" {
		t.Errorf("ended: %+v", got)
	}
}
