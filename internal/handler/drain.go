package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// cordonPatience is how long evictions wait for the cordon. An evicted pod may be recreated on a node that is not
	// cordoned yet, but a pod that is not evicted in time is worse.
	cordonPatience = 5 * time.Second

	// settleTime is how long an empty node is watched for pods that were scheduled before the scheduler saw the cordon.
	settleTime = 2 * time.Second

	// afterLimit limits the steps after the end of work, and attachedLimit the first of them.
	afterLimit    = 4 * time.Second
	attachedLimit = 2 * time.Second

	// effectLimit is how long an accepted eviction may take to show. A webhook may turn evictions into dry runs.
	effectLimit = 2 * time.Second

	// outageSlack is how long after the force time a pod is still evicted rather than deleted if no request got a
	// response. The reserve leaves the pod its grace period.
	outageSlack = 2 * time.Second

	// disruptLimit limits setting the condition DisruptionTarget before a force deletion.
	disruptLimit = time.Second

	// conflictPause keeps a pod that changes all the time from being requested all the time.
	conflictPause = 50 * time.Millisecond

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
	Attached []string    // volumes still attached at the end
	Changed  bool        // a request was sent that cannot be undone
	Listed   bool        // the pods were listed
	Refused  spot.Result // of a rehearsal that has only cordoned and restored the node
	Reason   string      // of Refused
	Dead     bool        // the kubelet has stopped, and the remaining pods are past their grace periods
}

func (r *drainResult) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// drainNode waits for the node, cordons it and evicts its pods. updates delivers new deadlines; nil for none. ctx
// ends with the plan or, if updates is not nil, with the invocation.
func (c *invocation) drainNode(ctx context.Context, updates <-chan hookUpdate) (result drainResult) {
	select {
	case <-c.node.done:
	case <-ctx.Done():
	}
	t := c.target()
	if t.Node == nil {
		return result
	}
	node, plan := *t.Node, c.plan(t)
	select {
	case u := <-updates: // from before the node was found
		plan = plan.WithDeadline(u.deadline, u.last)
	default:
	}
	result.Node = node.Name
	result.Timings.Located = spot.SecondsSince(c.in.Time, time.Now())
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	c.log("locate", "found node", "node", node.Name, "deadline", plan.Deadline)

	cordoned := make(chan cordonAttempt, 1)
	if c.in.Rehearsal {
		attempt := c.cordon(work, node, plan)
		if result.Refused, result.Reason = c.refuseRehearsal(work, attempt, node.Name); result.Refused != "" {
			after, cancel := c.afterWork(ctx)
			defer cancel()
			c.restoreNode(after, node, &result)
			return result
		}
		cordoned <- attempt
	} else {
		go func() { cordoned <- c.cordon(work, node, plan) }()
	}
	d := &podDrain{inv: c, plan: plan, node: node, events: newEventQueue(ctx, c.Cluster), pods: map[string]*podState{},
		evictedOwners: map[string]int{}, responses: make(chan evictionResponse, c.Policy.Parallel), nodes: make(chan spot.Node)}
	if plan.Drain {
		changes := make(chan podUpdate)
		go c.followPods(work, node.Name, changes)
		d.run(work, changes, cordoned, updates)
	} else {
		d.cordonDone(<-cordoned)
	}
	cancel()
	d.report(&result)
	after, cancel := c.afterWork(ctx)
	defer cancel()
	result.Attached = c.attachedVolumes(after, d)
	if c.in.Rehearsal {
		c.restoreNode(after, node, &result)
	}
	if plan.Drain {
		d.events.add(drainedEvent(node, result))
	}
	d.events.flush()
	if problem := d.events.close(after); problem != "" {
		result.problem("%s", problem)
	}
	return result
}

// afterWork returns the context of the steps after the end of work: reading the node again, sending Events and
// completing a lifecycle action. They share afterLimit, and end a second before the invocation.
func (c *invocation) afterWork(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(afterLimit)
	if !c.limit.IsZero() {
		end = spot.Earlier(end, c.limit.Add(reportMargin-time.Second))
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
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
	ctx, cancel := context.WithTimeout(ctx, attachedLimit)
	defer cancel()
	after, err := c.Cluster.NodeNamed(ctx, d.node.Name)
	if err != nil || after.UID != d.node.UID {
		return nil // gone or unreachable: nothing to report
	}
	return after.AttachedVolumes
}

// podDrain evicts the pods of one node. Only run touches its state; requests run in goroutines and send their
// responses.
type podDrain struct {
	inv           *invocation
	plan          spot.Plan
	node          spot.Node
	events        *eventQueue
	pods          map[string]*podState // by UID
	evictedOwners map[string]int       // by the UID of an owner of evicted pods: how many returned pods were evicted
	responses     chan evictionResponse
	inFlight      int // requests

	cordon       cordonAttempt
	isCordoned   bool // cordon is final
	nodes        chan spot.Node
	notReady     bool
	dead         bool
	uncordoned   *spot.Node // somebody uncordoned it
	recordons    int
	recordonAt   time.Time // the earliest time for the next one
	listed       bool
	listErr      error
	lastChange   time.Time
	lastEviction time.Time
	empty        time.Time // when the last pod that had to leave left
	planned      *spot.PlanResult
}

// evictionResponse is the response to a request.
type evictionResponse struct {
	pod      spot.Pod // as it was in the request
	request  spot.EvictionRequest
	err      error
	at       time.Time
	readOnly bool // the pod was read, and no request was sent
}

func (d *podDrain) run(ctx context.Context, changes <-chan podUpdate, cordoned <-chan cordonAttempt, updates <-chan hookUpdate) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	patience := time.NewTimer(cordonPatience)
	defer patience.Stop()
	evicting := false
	for {
		now := time.Now()
		if now.Before(d.plan.Until) {
			d.recordon(ctx, now)
			if evicting {
				d.sendDue(ctx, now)
			}
		} else {
			stop() // no heartbeat has moved the deadline
		}
		if evicting && d.listed && d.inFlight == 0 {
			d.events.flush() // every pod has had its first request
		}
		if dead := d.deadAt(); updates != nil && !dead.IsZero() && !now.Before(dead) {
			d.dead = true
			return
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
			if a.err == nil {
				d.nodeChanged(a.node) // its kubelet may have stopped before
				go d.inv.followNode(ctx, a.node, d.nodes)
			}
		case n := <-d.nodes:
			d.nodeChanged(n)
		case <-patience.C:
			evicting = true
		case u := <-changes:
			d.update(u)
		case r := <-d.responses:
			d.inFlight--
			d.handleResponse(r)
		case u := <-updates:
			d.setDeadline(u)
		case <-wake.C:
		}
		wake.Stop()
	}
}

// deadAt returns when all remaining pods of a node that is not ready are past their grace periods; zero for never.
// Nothing stops them any more: a lifecycle action need not wait.
func (d *podDrain) deadAt() (at time.Time) {
	if !d.notReady || !d.listed {
		return time.Time{}
	}
	for _, s := range d.pods {
		switch {
		case !s.mustLeave():
		case !s.pod.Terminating:
			return time.Time{}
		default:
			at = spot.Later(at, s.pod.DeletionTimestamp)
		}
	}
	return at
}

// quietAt returns when the node will have been empty for long enough; zero while it is not empty.
func (d *podDrain) quietAt() time.Time {
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
	if dead := d.deadAt(); now.Before(dead) {
		next = spot.Earlier(next, dead)
	}
	if d.uncordoned != nil {
		next = spot.Earlier(next, spot.Later(d.recordonAt, now))
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

func (d *podDrain) setDeadline(u hookUpdate) {
	d.plan = d.plan.WithDeadline(u.deadline, u.last)
	for _, s := range d.pods {
		if s.plan.Action == spot.PodEvict && !s.evicted {
			s.plan = d.plan.ForPod(s.pod, time.Now())
		}
	}
	if u.last {
		return
	}
	d.inv.log("extend-hook", "lifecycle hook extended", "deadline", u.deadline)
}

// update processes a change from the watch.
func (d *podDrain) update(u podUpdate) {
	now := time.Now()
	if !u.All || !d.listed { // another list of the same pods is no change
		d.lastChange = now
	}
	if u.err != nil {
		d.listErr = u.err
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
		s = &podState{due: now, plan: d.plan.ForPod(p, now)}
		if n, lost := d.evictedOwners[p.Owner.UID]; lost && d.listed {
			s.returned = true
			s.plan = d.plan.ForReturned(p, now, n)
			s.due = spot.Later(now, s.plan.NotBefore)
		}
		d.pods[p.UID], d.lastChange = s, now
		if d.listed {
			d.inv.log("pod-appeared", "pod appeared after the cordon", "pod", p.ID(), "plan", s.plan.Action,
				"reason", s.plan.Reason)
		}
	case s.evicted || s.inFlight || s.plan.Action != spot.PodEvict:
		// The plan stays. While a request is in flight, only its response tells whether the change is our doing.
	case p.Terminating != s.pod.Terminating, p.Finished != s.pod.Finished:
		s.plan = d.plan.ForPod(p, now)
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
	if s.plan.Action != spot.PodEvict || p.Terminating {
		s.due = time.Time{}
	}
}

func (d *podDrain) markGone(s *podState, now time.Time) {
	if s.gone {
		return
	}
	s.gone, s.terminatedAt, d.lastChange = true, now, now
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
		refusals := s.refusals
		if f := s.plan.ForceAt; s.failures > 0 && !f.IsZero() && !now.Before(f.Add(outageSlack)) {
			refusals++
		}
		r := d.plan.Request(s.pod, now, refusals)
		s.inFlight, s.due = true, time.Time{}
		d.inFlight++
		end := d.plan.Until
		for _, at := range []time.Time{s.plan.ForceAt.Add(outageSlack), s.plan.ForceAt} {
			if !r.Delete && now.Before(at) {
				end = spot.Earlier(end, at) // a missing response must not delay the force deletion
			}
		}
		ctx, cancel := context.WithDeadline(ctx, end)
		send := d.send
		if s.evicted {
			send = d.sendAgain
		}
		go func(p spot.Pod) {
			defer cancel()
			d.responses <- send(ctx, p, r)
		}(s.pod)
	}
}

func (d *podDrain) send(ctx context.Context, p spot.Pod, r spot.EvictionRequest) evictionResponse {
	send := d.inv.Cluster.Evict
	if r.Delete {
		send = d.inv.Cluster.Delete
		disrupting, cancel := context.WithTimeout(ctx, disruptLimit)
		after, err := d.inv.Cluster.Disrupt(disrupting, p)
		cancel()
		switch { // best effort: the deletion matters more
		case err == nil && after.Terminating: // somebody else was faster: a deletion would shorten its grace period
			return evictionResponse{pod: p, request: r, at: time.Now(), readOnly: true}
		case err == nil:
			p = after
		}
	}
	err := send(ctx, p, r.GracePeriod, r.Exact)
	return evictionResponse{pod: p, request: r, err: err, at: time.Now()}
}

// sendAgain repeats an accepted request that had no effect. It reads the pod first: a second request with a shorter
// grace period would kill a terminating pod early.
func (d *podDrain) sendAgain(ctx context.Context, p spot.Pod, r spot.EvictionRequest) evictionResponse {
	now, err := d.inv.Cluster.ReadPod(ctx, p)
	if err != nil || now.Terminating {
		return evictionResponse{pod: p, request: r, err: err, at: time.Now(), readOnly: true}
	}
	r.Exact = true
	return d.send(ctx, now, r)
}

func (d *podDrain) handleResponse(r evictionResponse) {
	s := d.pods[r.pod.UID]
	s.inFlight = false
	if r.err != nil && (s.pod.Terminating || s.pod.Finished) {
		s.plan = d.plan.ForPod(s.pod, r.at) // somebody else did that
	}
	switch {
	case errors.Is(r.err, spot.ErrNotFound):
		d.markGone(s, r.at)
		d.checkEmpty(r.at)
	case r.readOnly && r.err == nil: // it is terminating: the watch is late
	case r.readOnly:
		s.held = s.held && !r.at.Before(d.plan.Until) // unless the end of work cut it off
		s.due = r.at.Add(effectLimit)
	case r.err == nil:
		d.accepted(s, r)
	case errors.Is(r.err, spot.ErrChanged) && s.plan.Action != spot.PodEvict:
	case errors.Is(r.err, spot.ErrChanged) && s.pod.Version != r.pod.Version: // the watch has already shown the change
		s.due = r.at.Add(conflictPause)
	case errors.Is(r.err, spot.ErrChanged):
		s.changed = r.pod.Version
		d.refused(s, r, changedRetry)
	default:
		var refusal *spot.Refusal
		if errors.As(r.err, &refusal) {
			d.refused(s, r, refusal.RetryAfter)
			return
		}
		d.unanswered(s, r)
	}
}

func (d *podDrain) accepted(s *podState, r evictionResponse) {
	again := s.evicted && s.forced == r.request.Delete
	s.evicted, s.forced, s.held = true, r.request.Delete, !again
	s.changed, s.due = "", time.Time{}
	if !s.pod.Terminating && !d.plan.EvictOnce {
		s.due = r.at.Add(effectLimit)
		if f := s.plan.ForceAt; r.at.Before(f) {
			s.due = spot.Earlier(s.due, f)
		}
	}
	s.gracePeriod, s.requestedAt = r.request.GracePeriod, r.at
	d.lastEviction = r.at
	if again {
		s.refusals++ // accepted, but not done: it counts as refused
		return
	}
	if uid := s.pod.Owner.UID; uid != "" {
		n := d.evictedOwners[uid]
		if s.returned {
			n++
		}
		d.evictedOwners[uid] = n
	}
	d.events.add(podEvent(s.pod, d.node.Name, d.inv.in, r.request))
	action, msg := "evict", "evicted pod"
	if r.request.Delete {
		action, msg = "force-delete", "force-deleted pod"
	}
	d.inv.log(action, msg, "pod", s.pod.ID(), "grace_period", spot.ToSeconds(r.request.GracePeriod))
}

func (d *podDrain) refused(s *podState, r evictionResponse, retryAfter time.Duration) {
	var refusal *spot.Refusal
	s.held = errors.As(r.err, &refusal) && refusal.Budget
	s.refusals++
	s.refusal = r.err.Error()
	next, ok := d.plan.NextAttempt(s.pod, r.request, r.at, s.refusals, retryAfter)
	if ok && s.plan.Action == spot.PodEvict {
		s.due = next
	}
	d.inv.log("refused", "eviction refused", "pod", s.pod.ID(), "refusals", s.refusals, "refusal", s.refusal)
}

// unanswered handles a request without a response. It is not a refusal: after an outage, the pod is evicted once more
// before it is force-deleted.
func (d *podDrain) unanswered(s *podState, r evictionResponse) {
	s.failures++
	s.held = s.held && !r.at.Before(d.plan.Until)
	if s.refusal == "" || !errors.Is(r.err, context.DeadlineExceeded) { // our own limit says less than the server
		s.refusal = r.err.Error()
	}
	pause := min(toCluster.first<<min(s.failures, 10), toCluster.most, max(time.Until(d.plan.Until)/8, toCluster.first))
	next := r.at.Add(pause/2 + rand.N(pause/2))
	if f := s.plan.ForceAt; r.at.Before(f) {
		next = spot.Earlier(next, f)
	} else if !f.IsZero() && !r.request.Delete {
		next = r.at.Add(toCluster.first)
	}
	if !d.plan.EvictOnce && s.plan.Action == spot.PodEvict {
		s.due = next
	}
	d.inv.log("unanswered", "eviction request failed", "pod", s.pod.ID(), "failures", s.failures, "error", s.refusal)
}
