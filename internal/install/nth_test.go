package install

import (
	"fmt"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// TestHooks: for each hook, the findings name who completes it.
func TestHooks(t *testing.T) {
	const kops, groupName, takeOver = "nodes-NTHLifecycleHook", "nodes.prod.example.com", " kops-spot install --take-over-nth creates the hook kops-spot"
	deployment := []Workload{{Kind: "Deployment", Namespace: "kube-system", Name: nth}}
	group := func(hooks ...string) awsadmin.Group { return awsadmin.Group{Name: groupName, Hooks: hooks} }
	rebalancing := func(hooks ...string) awsadmin.Group {
		return awsadmin.Group{Name: groupName, Hooks: hooks, CapacityRebalance: true}
	}
	bastion := func(hooks ...string) awsadmin.Group {
		return awsadmin.Group{Name: groupName, Hooks: hooks, Tags: map[string]string{"k8s.io/role/bastion": "1"}, CapacityRebalance: true}
	}
	for name, c := range map[string]struct {
		group   awsadmin.Group
		handled string
		nth     []Workload
		stopped bool
		want    []string
	}{
		"no hook":                    {group(), "", nil, false, nil},
		"kOps' with its handler":     {group(kops), "", deployment, false, []string{"ok " + kops + " of " + groupName + ": completed by " + nth}},
		"kOps' left behind":          {group(kops), "", nil, false, []string{"warn nobody completes " + kops + " of " + groupName + ": each termination waits|" + takeOver}},
		"kOps' with a DaemonSet":     {group(kops), "", []Workload{{Kind: "DaemonSet"}}, false, []string{"warn nobody completes " + kops}},
		"kOps' left to the function": {group(kops), kops, nil, false, []string{"ok " + kops + " of " + groupName + ": completed by the function"}},
		"kOps' with two handlers": {group(kops), kops + ",drain", deployment, false, []string{"fail two handlers would complete " + kops + " of " + groupName +
			": the function, and aws-node-termination-handler (Deployment kube-system/" + nth + ")| remove it from the parameter: kops-spot install --set Hooks=drain"}},
		"of a group to come": {group(), kops, deployment, false, []string{"fail two handlers would complete " + kops + ":"}},
		"somebody's":         {group("theirs"), "", nil, false, []string{"ok theirs of " + groupName + ": completed by others"}},
		"the user's":         {group("drain"), "drain", nil, false, []string{"ok drain of " + groupName + ": completed by the function"}},
		"the function only observes": {group("drain"), "drain", nil, true, []string{"warn nobody completes drain of " + groupName +
			": the function is missing, only observes| kops-spot install --set Mode=act"}},
		"ours, not in Hooks":      {group(OurHook), "", nil, false, []string{"warn nobody completes kops-spot"}},
		"ours":                    {group(OurHook), OurHook, nil, false, []string{"ok kops-spot of " + groupName + ": completed by the function"}},
		"during the take-over":    {group(OurHook, kops), OurHook, deployment, false, []string{"ok " + kops, "ok kops-spot of"}},
		"a new group":             {group(), OurHook, nil, false, []string{"warn " + groupName + ": without the hook kops-spot| kops-spot install --take-over-nth creates it"}},
		"a new group with kOps'":  {group(kops), OurHook, deployment, false, []string{"warn " + groupName + ": without", "ok " + kops}},
		"rebalancing":             {rebalancing(), "", nil, false, []string{"warn Capacity Rebalancing terminates instances of " + groupName + "|" + takeOver}},
		"rebalancing with theirs": {rebalancing("theirs"), "", nil, false, []string{"warn Capacity Rebalancing", "ok theirs"}},
		"rebalancing with NTH":    {rebalancing(kops), "", deployment, false, []string{"ok " + kops}},
		"rebalancing left behind": {rebalancing(kops), "", nil, false, []string{"warn nobody", "warn Capacity Rebalancing"}},
		"rebalancing with ours":   {rebalancing(OurHook), OurHook, nil, false, []string{"ok kops-spot"}},
		"rebalancing, new group":  {rebalancing(), OurHook, nil, false, []string{"warn " + groupName + ": without"}},
		"a bastion":               {bastion(), OurHook, nil, false, nil},
		"a bastion with kOps'":    {bastion(kops), OurHook, deployment, false, []string{"ok " + kops}},
	} {
		h := Hooks{Groups: []awsadmin.Group{c.group}, Handled: awsadmin.List(c.handled), Live: !c.stopped, NTH: c.nth}
		found := h.Findings()
		bad := len(found) != len(c.want)
		for i, f := range found {
			if bad {
				break
			}
			detail, advice, _ := strings.Cut(c.want[i], "|")
			bad = !strings.HasPrefix(string(f.Level)+" "+f.Detail, detail) || !strings.HasPrefix(" "+f.Advice, advice) || f.Name != "hooks" ||
				f.Level != change.OK && f.Advice == ""
		}
		if bad {
			t.Errorf("%s: got %+v, want %q", name, found, c.want)
		}
	}
	if found := (Hooks{Err: awsadmin.ErrDenied}).Findings(); len(found) != 1 || found[0].Detail != "could not check: access denied" {
		t.Errorf("got %+v", found)
	}
}

// TestKopsName: kOps shortens long names, and so they differ.
func TestKopsName(t *testing.T) {
	const long = "a-cluster-with-a-long-name.eu-west-1.prod.example.com"
	for _, c := range []struct {
		name  string
		limit int
		want  string
	}{
		{"prod.example.com", 40, "prod.example.com"},
		{long, len(long), long},
		{long, 40, "a-cluster-with-a-long-name.eu-wes-50vg1t"},
	} {
		if got := kopsName(c.name, c.limit); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestWithOurHook(t *testing.T) {
	for hooks, want := range map[string]string{"": "kops-spot", "kops-spot": "kops-spot", "drain, x": "drain,x,kops-spot", "kops-spot,x": "kops-spot,x"} {
		if got := fmt.Sprint(WithOurHook(hooks)); got != want {
			t.Errorf("%q: got %q, want %q", hooks, got, want)
		}
	}
}
