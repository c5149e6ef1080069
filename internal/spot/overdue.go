package spot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// overdueAfter is how long an instance may run on past the end that is marked on its node. EC2 takes back in its own
	// time, and a shutdown takes minutes.
	overdueAfter = 15 * time.Minute

	// leftoverAfter is how long after its interruption, by its tag, an instance may be ended at the earliest.
	leftoverAfter = 10 * time.Minute
)

// Leftover is a node with our marks whose instance runs long past the marked end, and what is known of it. Whatever is
// not known keeps the instance.
type Leftover struct {
	Node     Node
	Instance Instance
	Since    time.Time // the end that is marked on the node

	Membership    *Membership
	MembershipErr error // ErrNotFound: it is in no group
	Pods          []Pod
	PodsErr       error // why they are not known
}

// OverdueTold is what is told of a Leftover.
type OverdueTold struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`           // the end that is marked on the node
	Ended    bool      `json:"ended,omitempty"` // EC2 was told to terminate the instance
	Kept     string    `json:"kept,omitempty"`  // why it was not
}

// DueInstances are the ids of the instances that should have ended long ago, by the marks on their nodes.
func DueInstances(nodes []Node, now time.Time) (ids []string) {
	for _, n := range nodes {
		if _, due := n.due(now); due {
			ids = append(ids, n.instanceID())
		}
	}
	return ids
}

// Overdue are those of the nodes whose instances run although they should have ended long ago, in the order of their names.
func Overdue(nodes []Node, instances map[string]Instance, now time.Time) (found []Leftover) {
	for _, n := range nodes {
		since, due := n.due(now)
		if i, known := instances[n.instanceID()]; due && known && i.State == stateRunning {
			found = append(found, Leftover{Node: n, Instance: i, Since: since})
		}
	}
	slices.SortFunc(found, func(a, b Leftover) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	return found
}

// due reports whether the end that we have marked on an EC2 instance's node passed long ago. The draining label alone does
// not tell: CAST AI's own parts set it too.
func (n Node) due(now time.Time) (since time.Time, due bool) {
	since, ok := n.deadlineMark()
	return since, ok && n.isMarked() && n.instanceID() != "" && now.Sub(since) >= overdueAfter
}

// instanceID is the id of the node's instance; empty if the node does not say.
func (n Node) instanceID() string {
	id := n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
	if !strings.HasPrefix(id, "i-") {
		return ""
	}
	return id
}

// KeepsInstance says why the instance of a leftover must not be ended at the moment now; empty if it may be.
//
// Only what we ourselves have made superfluous may be: an instance that we detached after a warning, that EC2 did not take
// back, and that nothing runs on. One that kOps has surged in a rolling update is detached too, but carries kOps' tag only.
func (p Policy) KeepsInstance(l Leftover, now time.Time) string {
	i := l.Instance
	if why := p.notOurs(i); why != "" {
		return why
	}
	since, due := l.Node.due(now)
	said, tagged := i.Tags[TagInterruptedAt]
	interrupted, err := time.Parse(time.RFC3339, said)
	switch {
	case !l.Node.IsInstance(i.ID):
		return "the node is another instance's"
	case !due:
		return fmt.Sprintf("the end that is marked on its node (%s) did not pass %s ago", since.Format(time.RFC3339), overdueAfter)
	case i.State != stateRunning:
		return "EC2 says that the instance is " + i.State
	case hasRole(Target{Node: &l.Node, Instance: &i}, "control-plane", "master", "apiserver", "api-server"):
		return "it runs the control plane"
	case !i.Spot:
		return "it is no Spot instance: nobody takes it back"
	case !tagged:
		return "it has no tag " + TagInterruptedAt + ": it was not we who detached it"
	case err != nil:
		return fmt.Sprintf("its tag %s is no time: %q", TagInterruptedAt, said)
	case now.Sub(interrupted) < leftoverAfter:
		return fmt.Sprintf("it was interrupted less than %s ago", leftoverAfter)
	case i.Launched.After(interrupted):
		return "it was started again after its interruption"
	case !l.Node.Unschedulable:
		return "somebody has opened its node again"
	}
	return l.inUse()
}

// inUse says who still needs the instance, or may; empty if nobody does.
func (l Leftover) inUse() string {
	switch {
	case l.Membership != nil:
		return "it is in the Auto Scaling group " + l.Membership.Group + ": the group would replace it"
	case l.MembershipErr == nil:
		return "nobody has asked whether it is in an Auto Scaling group"
	case !errors.Is(l.MembershipErr, ErrNotFound):
		return fmt.Sprintf("whether it is in an Auto Scaling group is not known: %v", l.MembershipErr)
	case l.PodsErr != nil:
		return fmt.Sprintf("whether pods are left on it is not known: %v", l.PodsErr)
	}
	for _, p := range l.Pods {
		if !p.Finished && freed(p) {
			return "the pod " + p.ID() + " is left on it"
		}
	}
	return ""
}

// Told is the leftover in the words of a self-check; kept says why its instance was not ended, empty if it was.
func (l Leftover) Told(kept string) OverdueTold {
	return OverdueTold{Node: l.Node.Name, Instance: l.Instance.ID, Since: l.Since.UTC(), Ended: kept == "", Kept: kept}
}
