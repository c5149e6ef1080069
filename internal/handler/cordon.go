package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// maxRecordons and recordonPause limit how often a node is cordoned again.
const (
	maxRecordons  = 5
	recordonPause = 5 * time.Second
)

// cordonAttempt is the result of cordoning the node.
type cordonAttempt struct {
	node    spot.Node
	at      time.Time
	changed bool
	err     error
}

func (c *invocation) cordon(ctx context.Context, n spot.Node, plan spot.Plan) cordonAttempt {
	var a cordonAttempt
	a.err = toCluster.persist(ctx, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, func(n spot.Node) spot.Node { return spot.Cordon(n, c.in, plan) })
		switch {
		case err == nil:
			a.node = after
			a.changed = a.changed || after.Version != n.Version
		case !errors.Is(err, spot.ErrPermanent) && !errors.Is(err, spot.ErrNotFound):
			a.changed = true // maybe: the response may have been lost
		}
		return err
	})
	if a.err == nil {
		a.at = time.Now()
		c.log("cordon", "cordoned node", "node", n.Name, "changed", a.changed)
	}
	return a
}

// refuseRehearsal lets rehearsals drain one node at a time: anybody who may send events can send one for each node. It
// looks after the cordon, so that of two rehearsals at the same time at least one sees the other.
func (c *invocation) refuseRehearsal(ctx context.Context, a cordonAttempt, node string) (spot.Result, string) {
	if a.err != nil {
		return spot.Incomplete, fmt.Sprintf("the node could not be cordoned: %v", a.err)
	}
	var nodes []spot.Node
	if err := toCluster.persist(ctx, func(ctx context.Context) (err error) {
		nodes, err = c.Cluster.CordonedNodes(ctx)
		return err
	}); err != nil {
		return spot.Incomplete, fmt.Sprintf("other rehearsals could not be listed: %v", err)
	}
	if other := spot.Rehearsed(nodes, node, time.Now()); other != "" {
		return spot.Skipped, "a rehearsal is draining node " + other + ": rehearse one node after the other"
	}
	return "", ""
}

// restoreNode uncordons the node after a rehearsal: its instance keeps running.
func (c *invocation) restoreNode(ctx context.Context, n spot.Node, result *drainResult) {
	err := toCluster.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		if err != nil || now.UID != n.UID {
			return err
		}
		_, err = c.Cluster.ChangeNode(ctx, now, func(n spot.Node) spot.Node { return spot.RestoreFor(n, c.in.EventID) })
		return err
	})
	if err != nil {
		result.problem("restoring the node after the rehearsal: %v: run kops-spot restore %s", err, n.Name)
		return
	}
	c.log("restore", "restored node after rehearsal", "node", n.Name)
}

func (d *podDrain) cordonDone(a cordonAttempt) {
	d.cordon, d.isCordoned = a, true
	close(d.inv.cordoned)
	d.lastChange = time.Now()
	d.events.add(cordonEvent(d.node, d.inv.in, d.plan, a.err))
}

// nodeChanged remembers the node if somebody uncordoned it, though EC2 ends the instance.
func (d *podDrain) nodeChanged(n spot.Node) {
	d.uncordoned, d.notReady = nil, n.NotReady
	if n.UID == d.node.UID && n.Uncordoned(d.inv.in.EventID) && d.inv.in.Kind.EndsInstance() && d.recordons < maxRecordons {
		d.uncordoned = &n
	}
}

// recordon cordons an uncordoned node again, since evicted pods may be recreated on it. The pause leaves other programs
// time to see it.
func (d *podDrain) recordon(ctx context.Context, now time.Time) {
	if d.uncordoned == nil || now.Before(d.recordonAt) {
		return
	}
	n := *d.uncordoned
	d.uncordoned = nil
	d.recordons++
	d.recordonAt = now.Add(recordonPause)
	d.inv.log("cordon", "cordoning node again", "node", n.Name, "times", d.recordons)
	go d.inv.cordon(ctx, n, d.plan)
}

// followNode sends the changes of the node to changes until ctx ends.
func (c *invocation) followNode(ctx context.Context, n spot.Node, changes chan<- spot.Node) {
	_ = toCluster.persist(ctx, func(ctx context.Context) error {
		err := c.Cluster.FollowNode(ctx, n, func(now spot.Node) {
			n = now
			select {
			case changes <- now:
			case <-ctx.Done():
			}
		})
		return cmp.Or(err, errNotYet)
	})
}
