package spot

import (
	"slices"
	"strings"
	"time"
)

// overdueAfter is how long an instance may run on past the end that is marked on its node. EC2 takes back in its own
// time, and a shutdown takes minutes.
const overdueAfter = 15 * time.Minute

// OverdueInstance is a node with our marks whose instance runs long past the marked end.
type OverdueInstance struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"` // the end that is marked on the node
}

// OverdueCandidates are the ids of the instances that should have ended long ago, by the marks on their nodes.
func OverdueCandidates(nodes []Node, now time.Time) (ids []string) {
	for _, n := range nodes {
		if _, due := n.due(now); due {
			ids = append(ids, n.instanceID())
		}
	}
	return ids
}

// Overdue are those of the nodes whose instances run although they should have ended long ago, in the order of their names.
func Overdue(nodes []Node, instances map[string]Instance, now time.Time) (found []OverdueInstance) {
	for _, n := range nodes {
		since, due := n.due(now)
		if i, known := instances[n.instanceID()]; due && known && i.State == stateRunning {
			found = append(found, OverdueInstance{Node: n.Name, Instance: i.ID, Since: since.UTC()})
		}
	}
	slices.SortFunc(found, func(a, b OverdueInstance) int { return strings.Compare(a.Node, b.Node) })
	return found
}

// due reports whether the end that we have marked on an EC2 instance's node passed long ago. The draining label alone does
// not tell: CAST AI's own parts set it too.
func (n Node) due(now time.Time) (since time.Time, due bool) {
	since, ok := n.recordedDeadline()
	return since, ok && n.isCordonedByUs() && n.instanceID() != "" && now.Sub(since) >= overdueAfter
}

// instanceID is the id of the node's instance; empty if the node does not say.
func (n Node) instanceID() string {
	id := n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
	if !strings.HasPrefix(id, "i-") {
		return ""
	}
	return id
}
