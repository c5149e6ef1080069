package spot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// lookBackLimit bounds the one look at the node after its drain.
const lookBackLimit = 3 * time.Second

// Signs that other programs leave on a node that they drain.
const (
	prefixNTH       = "aws-node-termination-handler" // its taints and labels begin so, and its label for load balancers says so
	taintKarpenter0 = "karpenter.sh/disruption"      // Karpenter before v1
	managerOurs     = "kops-spot"                    // what the API server calls our writes
)

// managers are the programs behind the field managers of the API server, by how these begin.
var managers = []struct{ prefix, name string }{
	{"kubectl", "kubectl"},
	{prefixNTH, "aws-node-termination-handler"},
	{"node-termination-handler", "aws-node-termination-handler"},
	{"karpenter", "Karpenter"},
	{"cluster-autoscaler", "cluster-autoscaler"},
	{"castai", "CAST AI"},
	{"kops", "kOps"},
}

// OtherTold is another program that was at work on the node.
type OtherTold struct {
	Name string `json:"name"`
	Sign string `json:"sign"` // by what it was recognised
}

// others are the programs that have drained or cordoned the node beside us, by the signs they leave.
func others(n Node) []OtherTold {
	var found []OtherTold
	add := func(name, format string, args ...any) {
		if !slices.ContainsFunc(found, func(o OtherTold) bool { return o.Name == name }) {
			found = append(found, OtherTold{name, fmt.Sprintf(format, args...)})
		}
	}
	for _, t := range n.Taints {
		switch {
		case t.Key == taintCADeleting:
			add("cluster-autoscaler", "taint %s", t.Key)
		case t.Key == taintKarpenter, t.Key == taintKarpenter0:
			add("Karpenter", "taint %s", t.Key)
		case strings.HasPrefix(t.Key, prefixNTH+"/"):
			add(prefixNTH, "taint %s", t.Key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		if strings.HasPrefix(key, prefixNTH+"/") {
			add(prefixNTH, "label %s", key)
		}
	}
	switch n.Labels[labelExcludeLB] {
	case prefixNTH:
		add(prefixNTH, "label %s=%s", labelExcludeLB, prefixNTH)
	case "karpenter":
		add("Karpenter", "label %s=karpenter", labelExcludeLB)
	}
	if why := n.Labels[labelDraining]; why != "" && why != drainingReason {
		add("CAST AI", "label %s=%s", labelDraining, why)
	}
	if by := n.CordonedBy; n.Unschedulable && by != "" && !strings.HasPrefix(by, managerOurs) {
		for _, m := range managers {
			if strings.HasPrefix(by, m.prefix) {
				by = m.name
				break
			}
		}
		add(by, "it made the node unschedulable")
	}
	return found
}

// lookBack looks at the node once more, if there is something that only this tells: volumes that are still attached, and
// who else was at work, where pods went that we had not asked.
func (c *call) lookBack(ctx context.Context, n Node, d *podDrain, told *nodeDrain) {
	told.Others = others(n)
	volumes, strangers := false, false
	for _, s := range d.pods {
		volumes = volumes || s.pod.Volumes && s.fate.Verb != Leave
		strangers = strangers || !s.told && (s.gone || s.fate.Verb == Watch)
	}
	if !volumes && !strangers {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookBackLimit)
	defer cancel()
	after, err := c.Cluster.NodeNamed(ctx, n.Name)
	if err != nil || after.UID != n.UID {
		return // it has gone, or cannot be asked any more: nothing that the outcome would be waiting for
	}
	for _, o := range others(after) {
		if !slices.ContainsFunc(told.Others, func(was OtherTold) bool { return was.Name == o.Name }) {
			told.Others = append(told.Others, o)
		}
	}
	if volumes {
		told.Attached = after.Attached
	}
}

// unmark takes our marks away after a rehearsal: nobody takes the machine.
func (c *call) unmark(ctx context.Context, n Node, told *nodeDrain) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endMargin)
	defer cancel()
	err := backoff{100 * time.Millisecond, time.Second}.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		if err != nil || now.UID != n.UID {
			return err
		}
		_, err = c.Cluster.ChangeNode(ctx, now, Restore)
		return err
	})
	if err != nil {
		told.problem("taking the rehearsal's marks away from the node: %v; kops-spot restore %s does it", err, n.Name)
		return
	}
	c.log("took the rehearsal's marks away", "node", n.Name)
}
