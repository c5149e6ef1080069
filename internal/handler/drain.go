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
	// cordonPatience is how long the evictions wait for the cordon. They must come after it, or an evicted pod's successor
	// may land on the same node; but pods that get no SIGTERM are worse.
	cordonPatience = 5 * time.Second

	// settle is how long an empty node is watched for pods that the scheduler bound to it before it saw the cordon.
	settle = 2 * time.Second

	// attachedLimit bounds the one look at the node after its drain.
	attachedLimit = 3 * time.Second

	// changedAgain is how long a pod that had changed when it was asked is left alone if the watch shows no change.
	changedAgain = 2 * time.Second
)

// drainResult is what became of the node's half of an interruption.
type drainResult struct {
	Node     string
	Cordon   spot.CordonResult
	Plan     *spot.PlanResult
	Timings  spot.Timings
	Pods     []spot.PodResult
	Problems []string
	Attached []string // volumes that were still attached at the end
	Changed  bool     // something was asked for that cannot be unasked
	Listed   bool     // the node's pods are known
}

func (d *drainResult) problem(format string, args ...any) {
	d.Problems = append(d.Problems, fmt.Sprintf(format, args...))
}

// drainNode waits for the node, cordons it, and sees its pods off. ctx ends with the plan, or, where a lifecycle hook's
// heartbeats move the plan's end, with the invocation.
func (c *invocation) drainNode(ctx context.Context, moves <-chan time.Time) (told drainResult) {
	select {
	case <-c.node.done:
	case <-ctx.Done():
	}
	node, _ := c.node.known()
	if node == nil {
		return told
	}
	told.Node = node.Name
	told.Timings.Located = spot.SecondsSince(c.in.Time, time.Now())
	plan := c.plan()
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	c.log("locate", "found node", "node", node.Name, "deadline", plan.Deadline)

	cordoned := make(chan cordonAttempt, 1)
	go func() { cordoned <- c.cordon(work, *node, plan) }()
	p := &podDrain{invocation: c, plan: plan, node: *node, events: newEventQueue(ctx, c.Cluster), pods: map[string]*podState{}, evictedOwners: map[string]bool{},
		responses: make(chan evictionResponse, c.Policy.Parallel)}
	if plan.Drain {
		changes := make(chan podUpdate)
		go c.follow(work, node.Name, changes)
		p.run(work, changes, cordoned, moves)
	} else {
		p.cordonDone(<-cordoned)
	}
	cancel() // the cordon and the watch have nothing left to do
	p.report(&told)
	told.Attached = c.attachedVolumes(ctx, *node, p)
	if c.in.Rehearsal {
		c.removeRehearsal(ctx, *node, &told)
	}
	if plan.Drain {
		p.events.add(drainedEvent(*node, told))
	}
	p.events.flush()
	if problem := p.events.close(); problem != "" {
		told.problem("%s", problem)
	}
	return told
}

// attachedVolumes reads the node once more, if pods that had to leave had volumes, and names the volumes attached to it.
func (c *invocation) attachedVolumes(ctx context.Context, n spot.Node, d *podDrain) []string {
	volumes := false
	for _, s := range d.pods {
		volumes = volumes || s.pod.Volumes && s.plan.Action != spot.PodSkip
	}
	if !volumes {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachedLimit)
	defer cancel()
	after, err := c.Cluster.NodeNamed(ctx, n.Name)
	if err != nil || after.UID != n.UID {
		return nil // it has gone, or cannot be asked any more: nothing that the outcome would be waiting for
	}
	return after.AttachedVolumes
}

// removeRehearsal takes our marks away after a rehearsal: nobody takes the machine.
func (c *invocation) removeRehearsal(ctx context.Context, n spot.Node, told *drainResult) {
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
		told.problem("taking the rehearsal's marks away from the node: %v; kops-spot restore %s does it", err, n.Name)
		return
	}
	c.log("restore", "restored node after rehearsal", "node", n.Name)
}

// cordonAttempt is what became of the cordon.
type cordonAttempt struct {
	at      time.Time
	changed bool
	err     error
}

func (c *invocation) cordon(ctx context.Context, n spot.Node, plan spot.Plan) cordonAttempt {
	var end cordonAttempt
	end.err = backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, func(n spot.Node) spot.Node { return spot.CordonedNode(n, c.in, plan) })
		switch {
		case err == nil:
			end.changed = end.changed || after.Version != n.Version
		case !errors.Is(err, spot.ErrPermanent) && !errors.Is(err, spot.ErrNotFound):
			end.changed = true // perhaps: the answer may have been lost
		}
		return err
	})
	if end.err == nil {
		end.at = time.Now()
		c.log("cordon", "cordoned node", "node", n.Name, "changed", end.changed)
	}
	return end
}

// podDrain sees the pods of one node off. Its run is the only one that touches its state; requests are made beside it
// and come back as answers.
type podDrain struct {
	*invocation
	plan          spot.Plan
	node          spot.Node
	events        *eventQueue
	pods          map[string]*podState // by UID
	evictedOwners map[string]bool      // UIDs of owners that have lost a pod here to us
	responses     chan evictionResponse
	inFlight      int // requests under way

	cordon       cordonAttempt
	isCordoned   bool
	listed       bool
	listErr      error
	givenUp      bool // listErr is for ever
	lastChange   time.Time
	lastEviction time.Time
	empty        time.Time // when the last pod that had to leave had left
	planned      *spot.PlanResult
}

// evictionResponse is what came of one request.
type evictionResponse struct {
	uid     string
	version string // of the pod that was asked
	request spot.EvictionRequest
	err     error
	at      time.Time
}

func (d *podDrain) run(ctx context.Context, changes <-chan podUpdate, cordoned <-chan cordonAttempt, moves <-chan time.Time) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	patience := time.NewTimer(cordonPatience)
	defer patience.Stop()
	open := false
	for {
		now := time.Now()
		if !now.Before(d.plan.Until) {
			stop() // the end has come without having been moved
		}
		if open {
			d.sendDue(ctx, now)
		}
		if open && d.listed && d.inFlight == 0 {
			d.events.flush() // every pod has been asked once
		}
		quiet := d.quietAt()
		if !quiet.IsZero() && !now.Before(quiet) && d.isCordoned && d.inFlight == 0 {
			return
		}
		wake := time.NewTimer(d.nextWake(now, quiet, open))
		select {
		case <-ctx.Done():
			wake.Stop()
			for ; d.inFlight > 0; d.inFlight-- { // the requests end with ctx; what they have achieved counts
				if a := <-d.responses; a.err == nil {
					d.handleResponse(a)
				}
			}
			if !d.isCordoned { // it ends with ctx too, and says why
				d.cordonDone(<-cordoned)
			}
			return
		case end := <-cordoned:
			d.cordonDone(end)
			open = true
		case <-patience.C:
			open = true
		case ch := <-changes:
			d.update(ch)
		case a := <-d.responses:
			d.inFlight--
			d.handleResponse(a)
		case deadline := <-moves:
			d.setDeadline(deadline)
		case <-wake.C:
		}
		wake.Stop()
	}
}

func (d *podDrain) cordonDone(end cordonAttempt) {
	d.cordon, d.isCordoned = end, true
	d.lastChange = time.Now()
	d.events.add(cordonEvent(d.node, d.in, d.plan, end.err))
}

// quietAt is when the node will have been empty for long enough; zero while it is not empty.
func (d *podDrain) quietAt() time.Time {
	if d.givenUp {
		return d.lastChange // the pods will never be known: there is nothing to wait for
	}
	if d.empty.IsZero() {
		return time.Time{}
	}
	return d.lastChange.Add(settle)
}

// nextWake is how long nothing is due.
func (d *podDrain) nextWake(now, quiet time.Time, open bool) time.Duration {
	next := d.plan.Until
	if !quiet.IsZero() && now.Before(quiet) {
		next = quiet
	}
	if open && d.inFlight < cap(d.responses) {
		for _, s := range d.pods {
			if s.mustLeave() && !s.inFlight && !s.due.IsZero() {
				next = spot.Earlier(next, spot.Later(s.due, d.earliest(s, now)))
			}
		}
	}
	return next.Sub(now)
}

// turn is when a pod may be asked at the earliest: one that goes last waits for the others, as long as it can.
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

// move takes another end of the machine in.
func (d *podDrain) setDeadline(deadline time.Time) {
	d.plan = d.plan.WithDeadline(deadline)
	for _, s := range d.pods {
		if s.plan.Action == spot.PodEvict && !s.evicted {
			s.plan = d.plan.ForPod(s.pod, time.Now(), false)
		}
	}
	d.log("extend-hook", "lifecycle hook extended", "deadline", deadline)
}

// see takes in what the watch shows.
func (d *podDrain) update(ch podUpdate) {
	now := time.Now()
	d.lastChange = now
	if ch.err != nil {
		d.listErr, d.givenUp = ch.err, ch.givenUp
		d.log("watch-failed", "pod watch failed", "error", ch.err)
		return
	}
	if ch.All {
		d.listErr = nil
		here := map[string]bool{}
		for _, p := range ch.Pods {
			here[p.UID] = true
		}
		for uid, s := range d.pods {
			if !here[uid] {
				d.markGone(s, now)
			}
		}
		if !d.listed {
			d.planned = d.plan.Summary(d.in, true, d.plan.ForPods(ch.Pods, d.began))
		}
	}
	for _, p := range ch.Pods {
		d.podChanged(p, ch.Gone, now)
	}
	d.listed = d.listed || ch.All
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
		s = &podState{due: now}
		d.pods[p.UID] = s
		s.plan = d.plan.ForPod(p, now, d.listed && d.evictedOwners[p.Owner.UID])
		if d.listed {
			d.log("pod-appeared", "pod appeared after the cordon", "pod", p.ID(), "plan", s.plan.Action, "reason", s.plan.Reason)
		}
	case s.evicted || s.inFlight || s.plan.Action != spot.PodEvict:
		// It is on its way or stays, or an answer that is under way tells whose doing this is.
	case p.Terminating != s.pod.Terminating, p.Finished != s.pod.Finished:
		s.plan = d.plan.ForPod(p, now, false)
	}
	if s.gone { // a list from a server that lags had left it out
		s.gone, s.terminatedAt = false, time.Time{}
		if s.plan.Action == spot.PodEvict && !s.evicted && !s.inFlight {
			s.due = now
		}
	}
	if s.held != "" && s.held != p.Version && !s.inFlight {
		s.held, s.due = "", now
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
		d.log("pod-terminated", "pod terminated", "pod", s.pod.ID(), "evicted", s.evicted)
	}
}

func (d *podDrain) checkEmpty(now time.Time) {
	left := false
	for _, s := range d.pods {
		left = left || s.mustLeave()
	}
	switch {
	case left || !d.listed:
		d.empty = time.Time{}
	case d.empty.IsZero():
		d.empty = now
	}
}

// sendDue sends the requests that are due, in the order of submission, as far as the bound allows.
func (d *podDrain) sendDue(ctx context.Context, now time.Time) {
	var due []*podState
	for _, s := range d.pods {
		if s.mustLeave() && !s.inFlight && !s.due.IsZero() && !s.due.After(now) && !d.earliest(s, now).After(now) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b *podState) int { return cmp.Or(a.due.Compare(b.due), spot.EvictionOrder(a.pod, b.pod)) })
	for _, s := range due[:min(len(due), cap(d.responses)-d.inFlight)] {
		ask := d.plan.Request(s.pod, now, s.refusals)
		s.inFlight, s.due = true, time.Time{}
		d.inFlight++
		end := d.plan.Until
		if f := s.plan.ForceAt; !ask.Delete && now.Before(f) {
			end = f // an answer that does not come must not cost the pod its time
		}
		go func(p spot.Pod) {
			ctx, cancel := context.WithDeadline(ctx, end)
			defer cancel()
			request := d.Cluster.Evict
			if ask.Delete {
				request = d.Cluster.Delete
			}
			err := request(ctx, p, ask.GracePeriod, ask.Exact)
			d.responses <- evictionResponse{p.UID, p.Version, ask, err, time.Now()}
		}(s.pod)
	}
}

// settle takes in what came of a request.
func (d *podDrain) handleResponse(a evictionResponse) {
	s := d.pods[a.uid]
	s.inFlight = false
	if a.err != nil && (s.pod.Terminating || s.pod.Finished) {
		s.plan = d.plan.ForPod(s.pod, a.at, false) // it was not us
	}
	refused := func(after time.Duration) {
		s.refusals++
		if s.refusal == "" || !errors.Is(a.err, context.DeadlineExceeded) { // one that we cut off says nothing of its own
			s.refusal = a.err.Error()
		}
		if next, ok := d.plan.NextAttempt(s.pod, a.request, a.at, s.refusals, after); ok && s.plan.Action == spot.PodEvict {
			s.due = next
		}
		d.log("refused", "eviction refused", "pod", s.pod.ID(), "refusals", s.refusals, "refusal", s.refusal)
	}
	var refusal *spot.Refusal
	switch {
	case a.err == nil:
		s.evicted, s.forced = true, a.request.Delete
		s.held, s.due = "", time.Time{} // nothing that the watch has shown meanwhile has it asked again
		s.gracePeriod, s.requestedAt = a.request.GracePeriod, a.at
		if s.pod.Owner.UID != "" {
			d.evictedOwners[s.pod.Owner.UID] = true
		}
		d.lastEviction = a.at
		d.events.add(podEvent(s.pod, d.node.Name, d.in, a.request))
		action, msg := "evict", "evicted pod"
		if a.request.Delete {
			action, msg = "force-delete", "force-deleted pod"
		}
		d.log(action, msg, "pod", s.pod.ID(), "grace_period", spot.ToSeconds(a.request.GracePeriod))
	case errors.Is(a.err, spot.ErrNotFound):
		d.markGone(s, a.at)
		d.checkEmpty(a.at)
		d.lastChange = a.at
	case errors.Is(a.err, spot.ErrChanged):
		switch {
		case s.plan.Action != spot.PodEvict:
		case s.pod.Version != a.version: // the watch was quicker than the answer
			s.due = a.at
		default:
			s.held = a.version
			refused(changedAgain)
		}
	case errors.As(a.err, &refusal):
		refused(refusal.RetryAfter)
	default:
		refused(0)
	}
}
