package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// cordonPatience is how long evictions wait for the cordon. An evicted pod may be recreated on a node that is not
	// cordoned yet, but a pod that gets no SIGTERM is worse.
	cordonPatience = 5 * time.Second

	// settleTime is how long an empty node is watched for pods that were scheduled before the scheduler saw the cordon.
	settleTime = 2 * time.Second

	// attachedLimit limits the read of the node after its drain.
	attachedLimit = 3 * time.Second

	// changedRetry is the pause before retrying a pod that had changed, if the watch shows no change.
	changedRetry = 2 * time.Second
)

// drainResult is the result of draining the node.
type drainResult struct {
	Node     string
	Cordon   spot.CordonResult
	Plan     *spot.PlanResult
	Timings  spot.Timings
	Pods     []spot.PodResult
	Problems []string
	Attached []string // volumes still attached at the end
	Changed  bool     // a request was sent that cannot be undone
	Listed   bool     // the pods were listed
}

func (r *drainResult) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// drainNode waits for the node, cordons it and evicts its pods. moves delivers new deadlines; nil for none. ctx ends
// with the plan or, if moves is not nil, with the invocation.
func (c *invocation) drainNode(ctx context.Context, moves <-chan time.Time) (result drainResult) {
	select {
	case <-c.node.done:
	case <-ctx.Done():
	}
	t := c.target()
	if t.Node == nil {
		return result
	}
	node, plan := *t.Node, c.plan(t)
	result.Node = node.Name
	result.Timings.Located = spot.SecondsSince(c.in.Time, time.Now())
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	c.log("locate", "found node", "node", node.Name, "deadline", plan.Deadline)

	cordoned := make(chan cordonAttempt, 1)
	go func() { cordoned <- c.cordon(work, node, plan) }()
	d := &podDrain{inv: c, plan: plan, node: node, events: newEventQueue(ctx, c.Cluster), pods: map[string]*podState{},
		evictedOwners: map[string]bool{}, responses: make(chan evictionResponse, c.Policy.Parallel)}
	if plan.Drain {
		changes := make(chan podUpdate)
		go c.followPods(work, node.Name, changes)
		d.run(work, changes, cordoned, moves)
	} else {
		d.cordonDone(<-cordoned)
	}
	cancel()
	d.report(&result)
	result.Attached = c.attachedVolumes(ctx, d)
	if c.in.Rehearsal {
		c.restoreNode(ctx, node, &result)
	}
	if plan.Drain {
		d.events.add(drainedEvent(node, result))
	}
	d.events.flush()
	if problem := d.events.close(); problem != "" {
		result.problem("%s", problem)
	}
	return result
}

// attachedVolumes returns the volumes still attached to the node, if pods that had to leave had any.
func (c *invocation) attachedVolumes(ctx context.Context, d *podDrain) []string {
	volumes := false
	for _, s := range d.pods {
		volumes = volumes || s.pod.Volumes && s.plan.Action != spot.PodSkip
	}
	if !volumes {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachedLimit)
	defer cancel()
	after, err := c.Cluster.NodeNamed(ctx, d.node.Name)
	if err != nil || after.UID != d.node.UID {
		return nil // gone or unreachable: nothing to report
	}
	return after.AttachedVolumes
}

// restoreNode uncordons the node after a rehearsal: its instance keeps running.
func (c *invocation) restoreNode(ctx context.Context, n spot.Node, result *drainResult) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportMargin)
	defer cancel()
	err := backoff{100 * time.Millisecond, time.Second}.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		if err != nil || now.UID != n.UID {
			return err
		}
		_, err = c.Cluster.ChangeNode(ctx, now, spot.Restore)
		return err
	})
	if err != nil {
		result.problem("restoring the node after the rehearsal: %v: run kops-spot restore %s", err, n.Name)
		return
	}
	c.log("restore", "restored node after rehearsal", "node", n.Name)
}

// cordonAttempt is the result of cordoning the node.
type cordonAttempt struct {
	at      time.Time
	changed bool
	err     error
}

func (c *invocation) cordon(ctx context.Context, n spot.Node, plan spot.Plan) cordonAttempt {
	var a cordonAttempt
	a.err = backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, func(n spot.Node) spot.Node { return spot.Cordon(n, c.in, plan) })
		switch {
		case err == nil:
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

// podDrain evicts the pods of one node. Only run touches its state; requests run in goroutines and send their
// responses.
type podDrain struct {
	inv           *invocation
	plan          spot.Plan
	node          spot.Node
	events        *eventQueue
	pods          map[string]*podState // by UID
	evictedOwners map[string]bool      // UIDs of the owners of evicted pods
	responses     chan evictionResponse
	inFlight      int // requests

	cordon       cordonAttempt
	isCordoned   bool // cordon is final
	listed       bool
	listErr      error
	givenUp      bool // listErr is permanent
	lastChange   time.Time
	lastEviction time.Time
	empty        time.Time // when the last pod that had to leave left
	planned      *spot.PlanResult
}

// evictionResponse is the response to a request.
type evictionResponse struct {
	uid     string
	version string // of the pod in the request
	request spot.EvictionRequest
	err     error
	at      time.Time
}

func (d *podDrain) run(ctx context.Context, changes <-chan podUpdate, cordoned <-chan cordonAttempt, moves <-chan time.Time) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	patience := time.NewTimer(cordonPatience)
	defer patience.Stop()
	evicting := false
	for {
		now := time.Now()
		if !now.Before(d.plan.Until) {
			stop() // no heartbeat has moved the deadline
		}
		if evicting {
			d.sendDue(ctx, now)
		}
		if evicting && d.listed && d.inFlight == 0 {
			d.events.flush() // every pod has had its first request
		}
		quiet := d.quietAt()
		if !quiet.IsZero() && !now.Before(quiet) && d.isCordoned && d.inFlight == 0 {
			return
		}
		wake := time.NewTimer(d.nextWake(now, quiet, evicting))
		select {
		case <-ctx.Done():
			wake.Stop()
			for ; d.inFlight > 0; d.inFlight-- { // the requests end with ctx, and count if they were accepted
				if r := <-d.responses; r.err == nil {
					d.handleResponse(r)
				}
			}
			if !d.isCordoned { // ends with ctx too
				d.cordonDone(<-cordoned)
			}
			return
		case a := <-cordoned:
			d.cordonDone(a)
			evicting = true
		case <-patience.C:
			evicting = true
		case u := <-changes:
			d.update(u)
		case r := <-d.responses:
			d.inFlight--
			d.handleResponse(r)
		case deadline := <-moves:
			d.setDeadline(deadline)
		case <-wake.C:
		}
		wake.Stop()
	}
}

func (d *podDrain) cordonDone(a cordonAttempt) {
	d.cordon, d.isCordoned = a, true
	d.lastChange = time.Now()
	d.events.add(cordonEvent(d.node, d.inv.in, d.plan, a.err))
}

// quietAt returns when the node will have been empty for long enough; zero while it is not empty.
func (d *podDrain) quietAt() time.Time {
	if d.givenUp {
		return d.lastChange // the pods cannot be listed: nothing to wait for
	}
	if d.empty.IsZero() {
		return time.Time{}
	}
	return d.lastChange.Add(d.inv.settle)
}

// nextWake returns how long nothing is due.
func (d *podDrain) nextWake(now, quiet time.Time, evicting bool) time.Duration {
	next := d.plan.Until
	if !quiet.IsZero() && now.Before(quiet) {
		next = quiet
	}
	if evicting && d.inFlight < cap(d.responses) {
		for _, s := range d.pods {
			if s.mustLeave() && !s.inFlight && !s.due.IsZero() {
				next = spot.Earlier(next, spot.Later(s.due, d.earliest(s, now)))
			}
		}
	}
	return next.Sub(now)
}

// earliest returns when a pod can be evicted at the earliest: a pod that goes last waits for the others while it can.
func (d *podDrain) earliest(s *podState, now time.Time) time.Time {
	if at := s.plan.LatestAt; now.Before(at) {
		for _, other := range d.pods {
			if other.plan.LatestAt.IsZero() && other.mustLeave() {
				return at
			}
		}
	}
	return time.Time{}
}

func (d *podDrain) setDeadline(deadline time.Time) {
	d.plan = d.plan.WithDeadline(deadline)
	for _, s := range d.pods {
		if s.plan.Action == spot.PodEvict && !s.evicted {
			s.plan = d.plan.ForPod(s.pod, time.Now(), false)
		}
	}
	d.inv.log("extend-hook", "lifecycle hook extended", "deadline", deadline)
}

// update processes a change from the watch.
func (d *podDrain) update(u podUpdate) {
	now := time.Now()
	d.lastChange = now
	if u.err != nil {
		d.listErr, d.givenUp = u.err, u.givenUp
		d.inv.log("watch-failed", "pod watch failed", "error", u.err)
		return
	}
	if u.All {
		d.listErr = nil
		here := map[string]bool{}
		for _, p := range u.Pods {
			here[p.UID] = true
		}
		for uid, s := range d.pods {
			if !here[uid] {
				d.markGone(s, now)
			}
		}
		if !d.listed {
			d.planned = d.plan.Summary(d.inv.in, true, u.Pods, d.inv.began)
		}
	}
	for _, p := range u.Pods {
		d.podChanged(p, u.Gone, now)
	}
	d.listed = d.listed || u.All
	d.checkEmpty(now)
}

func (d *podDrain) podChanged(p spot.Pod, gone bool, now time.Time) {
	s := d.pods[p.UID]
	switch {
	case gone && s != nil:
		d.markGone(s, now)
		return
	case gone:
		return
	case s == nil:
		s = &podState{due: now, plan: d.plan.ForPod(p, now, d.listed && d.evictedOwners[p.Owner.UID])}
		d.pods[p.UID] = s
		if d.listed {
			d.inv.log("pod-appeared", "pod appeared after the cordon", "pod", p.ID(), "plan", s.plan.Action,
				"reason", s.plan.Reason)
		}
	case s.evicted || s.inFlight || s.plan.Action != spot.PodEvict:
		// The plan stays. While a request is in flight, only its response tells whether the change is our doing.
	case p.Terminating != s.pod.Terminating, p.Finished != s.pod.Finished:
		s.plan = d.plan.ForPod(p, now, false)
	}
	if s.gone { // a stale list did not contain it
		s.gone, s.terminatedAt = false, time.Time{}
		if s.plan.Action == spot.PodEvict && !s.evicted && !s.inFlight {
			s.due = now
		}
	}
	if s.changed != "" && s.changed != p.Version && !s.inFlight {
		s.changed, s.due = "", now
	}
	s.pod = p
	if s.plan.Action != spot.PodEvict {
		s.due = time.Time{}
	}
}

func (d *podDrain) markGone(s *podState, now time.Time) {
	if s.gone {
		return
	}
	s.gone, s.terminatedAt = true, now
	if s.plan.Action != spot.PodSkip {
		d.inv.log("pod-terminated", "pod terminated", "pod", s.pod.ID(), "evicted", s.evicted)
	}
}

func (d *podDrain) checkEmpty(now time.Time) {
	remaining := false
	for _, s := range d.pods {
		remaining = remaining || s.mustLeave()
	}
	switch {
	case remaining || !d.listed:
		d.empty = time.Time{}
	case d.empty.IsZero():
		d.empty = now
	}
}

// sendDue sends the requests that are due, in the order of eviction, up to Policy.Parallel in flight.
func (d *podDrain) sendDue(ctx context.Context, now time.Time) {
	var due []*podState
	for _, s := range d.pods {
		if s.mustLeave() && !s.inFlight && !s.due.IsZero() && !s.due.After(now) && !d.earliest(s, now).After(now) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b *podState) int {
		return cmp.Or(a.due.Compare(b.due), spot.EvictionOrder(a.pod, b.pod))
	})
	for _, s := range due[:min(len(due), cap(d.responses)-d.inFlight)] {
		r := d.plan.Request(s.pod, now, s.refusals)
		s.inFlight, s.due = true, time.Time{}
		d.inFlight++
		end := d.plan.Until
		if f := s.plan.ForceAt; !r.Delete && now.Before(f) {
			end = f // a missing response must not delay the force deletion
		}
		go func(p spot.Pod) {
			ctx, cancel := context.WithDeadline(ctx, end)
			defer cancel()
			send := d.inv.Cluster.Evict
			if r.Delete {
				send = d.inv.Cluster.Delete
			}
			err := send(ctx, p, r.GracePeriod, r.Exact)
			d.responses <- evictionResponse{p.UID, p.Version, r, err, time.Now()}
		}(s.pod)
	}
}

func (d *podDrain) handleResponse(r evictionResponse) {
	s := d.pods[r.uid]
	s.inFlight = false
	if r.err != nil && (s.pod.Terminating || s.pod.Finished) {
		s.plan = d.plan.ForPod(s.pod, r.at, false) // somebody else did that
	}
	switch {
	case r.err == nil:
		d.accepted(s, r)
	case errors.Is(r.err, spot.ErrNotFound):
		d.markGone(s, r.at)
		d.checkEmpty(r.at)
		d.lastChange = r.at
	case errors.Is(r.err, spot.ErrChanged):
		switch {
		case s.plan.Action != spot.PodEvict:
		case s.pod.Version != r.version: // the watch has already shown the change
			s.due = r.at
		default:
			s.changed = r.version
			d.refused(s, r, changedRetry)
		}
	default:
		var refusal *spot.Refusal
		retryAfter := time.Duration(0)
		if errors.As(r.err, &refusal) {
			retryAfter = refusal.RetryAfter
		}
		d.refused(s, r, retryAfter)
	}
}

func (d *podDrain) accepted(s *podState, r evictionResponse) {
	s.evicted, s.forced = true, r.request.Delete
	s.changed, s.due = "", time.Time{}
	s.gracePeriod, s.requestedAt = r.request.GracePeriod, r.at
	if s.pod.Owner.UID != "" {
		d.evictedOwners[s.pod.Owner.UID] = true
	}
	d.lastEviction = r.at
	d.events.add(podEvent(s.pod, d.node.Name, d.inv.in, r.request))
	action, msg := "evict", "evicted pod"
	if r.request.Delete {
		action, msg = "force-delete", "force-deleted pod"
	}
	d.inv.log(action, msg, "pod", s.pod.ID(), "grace_period", spot.ToSeconds(r.request.GracePeriod))
}

func (d *podDrain) refused(s *podState, r evictionResponse, retryAfter time.Duration) {
	s.refusals++
	if s.refusal == "" || !errors.Is(r.err, context.DeadlineExceeded) { // our own deadline says less than the server
		s.refusal = r.err.Error()
	}
	next, ok := d.plan.NextAttempt(s.pod, r.request, r.at, s.refusals, retryAfter)
	if ok && s.plan.Action == spot.PodEvict {
		s.due = next
	}
	d.inv.log("refused", "eviction refused", "pod", s.pod.ID(), "refusals", s.refusals, "refusal", s.refusal)
}
