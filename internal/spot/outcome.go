package spot

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// OutcomeVersion is the version of the Outcome's JSON form. Fields may be added within a version, never change meaning.
const OutcomeVersion = 1

// Result is what came of an interruption, in one word.
type Result string

const (
	Ignored    Result = "ignored"     // not an event that the handler has a rule for
	ForeignOne Result = "foreign"     // not this cluster's instance
	StaleOne   Result = "stale"       // the event speaks of the past
	Planned    Result = "planned"     // nothing was changed; the outcome says what would have been
	NoNode     Result = "no-node"     // the instance is ours, but no node of it registered in time
	Emptied    Result = "emptied"     // every pod that had to leave the node has left it
	NotEmptied Result = "not-emptied" // some pods were still there at the end, or the node could not be worked on
	Cordoned   Result = "cordoned"    // the node was cordoned, and its pods were left, by policy
	LeftAsIs   Result = "noted"       // the node is ours, and was left as it is, by policy
	Released   Result = "released"    // after the machine's end: its pods and volumes were given free
	Returned   Result = "returned"    // the instance is back, and our marks are gone
)

// Outcome is all that is told of an interruption: what was done, when, and what was left undone and why.
type Outcome struct {
	Version     int            `json:"version"`
	Result      Result         `json:"result"`
	Reason      string         `json:"reason,omitempty"`
	Event       EventTold      `json:"event,omitzero"`
	Cluster     string         `json:"cluster,omitempty"`
	Node        string         `json:"node,omitempty"`
	Deadline    time.Time      `json:"deadline,omitzero"` // the end of the machine
	Plan        *PlanTold      `json:"plan,omitempty"`
	Cordon      *CordonTold    `json:"cordon,omitempty"`
	Replacement *ReplaceTold   `json:"replacement,omitempty"`
	Lifecycle   *LifecycleTold `json:"lifecycle,omitempty"`
	Release     *ReleaseTold   `json:"release,omitempty"`
	Times       TimesTold      `json:"times,omitzero"`
	Pods        []PodTold      `json:"pods,omitempty"`
	Attached    []string       `json:"attached,omitempty"` // volumes that were still attached when the pods had gone
	Problems    []string       `json:"problems,omitempty"`

	// Each are the outcomes of an event about several instances, one each; what stands above is the gravest of them.
	Each []Outcome `json:"each,omitempty"`
}

// EventTold is the event that an outcome is of.
type EventTold struct {
	ID       string    `json:"id,omitempty"`
	Kind     Kind      `json:"kind,omitempty"`
	Type     string    `json:"type,omitempty"` // EventBridge's detail-type, where the handler has no rule for it
	Instance string    `json:"instance,omitempty"`
	Time     time.Time `json:"time,omitzero"`
}

// Seconds is a moment, in seconds after the event, or a length of time.
type Seconds float64

func seconds(d time.Duration) Seconds { return Seconds(math.Round(d.Seconds()*1000) / 1000) }

// since is the moment t in seconds after the event; nil if t never came.
func since(event, t time.Time) *Seconds {
	if t.IsZero() {
		return nil
	}
	s := seconds(t.Sub(event))
	return &s
}

// PlanTold is what was decided at the beginning. It is the same whether the plan was then carried out or not.
type PlanTold struct {
	Cordon  bool          `json:"cordon"`
	Drain   bool          `json:"drain"`
	Replace ReplaceAction `json:"replace"`
	Group   string        `json:"group,omitempty"`
	Reason  string        `json:"reason,omitempty"` // why there is no replacement
	Pods    []PodPlanned  `json:"pods"`
}

// PodPlanned is what was decided about a pod.
type PodPlanned struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Verb      Verb     `json:"verb"`
	Reason    string   `json:"reason"`
	Grace     Seconds  `json:"grace,omitempty"`
	ForceAt   *Seconds `json:"force_at,omitempty"`
}

// told is the plan in the outcome's words.
func (p Plan) told(in Interruption, cordon bool, fates []PodFate) *PlanTold {
	told := &PlanTold{Cordon: cordon, Drain: cordon && p.Drain, Pods: []PodPlanned{}}
	told.replace(p)
	for _, f := range fates {
		told.Pods = append(told.Pods, PodPlanned{Namespace: f.Pod.Namespace, Name: f.Pod.Name, Verb: f.Fate.Verb,
			Reason: f.Fate.Reason, Grace: seconds(f.Fate.Grace), ForceAt: since(in.Time, f.Fate.ForceAt)})
	}
	return told
}

// replace takes in who is asked for a replacement, as far as that is decided by now.
func (t *PlanTold) replace(p Plan) {
	t.Replace, t.Group, t.Reason = p.Replace.Action, p.Replace.Group, p.Replace.Reason
}

// CordonTold is what became of the cordon.
type CordonTold struct {
	At    *Seconds `json:"at,omitempty"`
	Error string   `json:"error,omitempty"`
}

// ReplaceTold is what became of asking for a replacement.
type ReplaceTold struct {
	Action       ReplaceAction `json:"action"` // what was done: none, if it was refused or not wanted
	Group        string        `json:"group,omitempty"`
	Claim        string        `json:"claim,omitempty"` // the NodeClaim that was deleted
	Told         string        `json:"told,omitempty"`  // what the autoscaler was told
	At           *Seconds      `json:"at,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	SkippedHooks []string      `json:"skipped_hooks,omitempty"`

	Instance   string   `json:"instance,omitempty"`   // the instance that the group launches instead
	Launched   *Seconds `json:"launched,omitempty"`   // when it began to
	Node       string   `json:"node,omitempty"`       // its node
	Registered *Seconds `json:"registered,omitempty"` // when the node had registered
	Answer     string   `json:"answer,omitempty"`     // why there is no instance, in the group's own words

	changed bool // something was asked for that cannot be taken back
}

// TimesTold are the moments by which a drain is judged, in seconds after the event.
type TimesTold struct {
	Began        *Seconds `json:"began,omitempty"`         // the handler got the event
	Located      *Seconds `json:"located,omitempty"`       // the node was found
	Cordoned     *Seconds `json:"cordoned,omitempty"`      // no new pods from here on
	LastEviction *Seconds `json:"last_eviction,omitempty"` // the last pod was told to end
	Empty        *Seconds `json:"empty,omitempty"`         // the last pod that had to leave had left
	Ended        *Seconds `json:"ended,omitempty"`         // the handler returned
}

// PodEnd is what became of a pod.
type PodEnd string

const (
	PodLeft      PodEnd = "left"      // it stays, by rule
	PodEvicted   PodEnd = "evicted"   // it was evicted and has gone
	PodForced    PodEnd = "forced"    // it was deleted past its budget and has gone
	PodGone      PodEnd = "gone"      // it went without our asking
	PodStuck     PodEnd = "stuck"     // its containers have ended, but a finalizer keeps its object
	PodReleased  PodEnd = "released"  // its object was deleted after its machine had stopped
	PodRemaining PodEnd = "remaining" // it was still there at the end
)

// PodTold is what became of a pod of the node, and why.
type PodTold struct {
	Namespace   string   `json:"namespace"`
	Name        string   `json:"name"`
	UID         string   `json:"uid"`
	Owner       string   `json:"owner,omitempty"` // kind/name
	End         PodEnd   `json:"end"`
	Reason      string   `json:"reason"`
	Grace       Seconds  `json:"grace,omitempty"`    // the grace period it was told to end with
	Asked       *Seconds `json:"asked,omitempty"`    // when it was told to end
	Gone        *Seconds `json:"gone,omitempty"`     // when it had gone
	Refusals    int      `json:"refusals,omitempty"` // how often the request failed
	LastRefusal string   `json:"last_refusal,omitempty"`
	EndedBy     string   `json:"ended_by,omitempty"`   // who began to end it, as Kubernetes names it in the condition DisruptionTarget
	LocalData   bool     `json:"local_data,omitempty"` // it had an emptyDir on the node's disk, which ends with it
	Finalizers  []string `json:"finalizers,omitempty"` // what keeps its object
}

func podCount(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// end is the outcome of a call that acts on nothing.
func (c *call) end(plan Plan) Outcome {
	out := Outcome{Version: OutcomeVersion, Cluster: c.Policy.Cluster, Reason: plan.Reason,
		Event: EventTold{ID: c.in.EventID, Kind: c.in.Kind, Instance: c.in.Instance, Time: c.in.Time},
		Times: TimesTold{Began: since(c.in.Time, c.began), Ended: since(c.in.Time, time.Now())},
	}
	if !plan.Deadline.IsZero() {
		out.Deadline = plan.Deadline.UTC().Round(0)
	}
	switch plan.Verdict {
	case Stale:
		out.Result = StaleOne
	case Foreign:
		out.Result = ForeignOne
	}
	if n, _ := c.node.known(); n != nil {
		out.Node = n.Name
	}
	return out
}

// notReplaced is why a replacement that the plan wanted was not asked for.
func notReplaced(plan Plan, r ReplaceTold) error {
	return nilOr(plan.Replace.Action != ReplaceNone && r.Action == ReplaceNone, "replacing the instance: %w", errors.New(r.Reason))
}

// told takes what became of asking for a replacement into the outcome, and says whether that has changed anything.
func (o *Outcome) told(r ReplaceTold) (changed bool) {
	changed, r.changed = r.changed, false
	o.Replacement = &r
	return changed
}

// outcome puts the two halves together. If nothing was done and something went wrong, it is an error.
func (c *call) outcome(d nodeDrain, r ReplaceTold) (Outcome, error) {
	plan, t := c.plan(), c.target()
	out := c.end(plan)
	if plan.Verdict != Act {
		return out, nil
	}
	changed := out.told(r) || d.Changed
	out.Problems, out.Attached = d.Problems, d.Attached
	switch {
	case t.Node == nil && errors.Is(t.NodeErr, errAbsentYet), t.Node == nil && errors.Is(t.NodeErr, ErrNotFound):
		if t.Instance == nil && !changed {
			return Outcome{}, c.failure()
		}
		out.Result, out.Reason = NoNode, "no node of the instance registered before the deadline"
		return out, nil
	case t.Node == nil:
		if !changed {
			return Outcome{}, errors.Join(c.failure(), notReplaced(plan, r))
		}
		out.Result, out.Reason = NotEmptied, "the cluster could not be asked for the node"
		out.Problems = append(out.Problems, c.failure().Error())
		return out, nil
	}
	began := out.Times
	out.Times = d.Times
	out.Times.Began, out.Times.Ended = began.Began, began.Ended
	out.Plan, out.Cordon, out.Pods = d.Plan, &d.Cordon, d.Pods
	if out.Plan == nil { // the pods were never seen
		out.Plan = plan.told(c.in, true, nil)
	}
	out.Plan.replace(plan)
	remaining := 0
	for _, p := range d.Pods {
		if p.End == PodRemaining {
			remaining++
		}
	}
	switch {
	case !plan.Drain && d.Cordon.Error != "" && !changed:
		return Outcome{}, fmt.Errorf("cordoning node %s: %s", out.Node, d.Cordon.Error)
	case !plan.Drain && d.Cordon.Error != "":
		out.Result, out.Reason = NotEmptied, "the node could not be cordoned"
	case !plan.Drain:
		out.Result, out.Reason = Cordoned, "the policy is to cordon the node and leave its pods"
	case !d.Listed && !changed:
		return Outcome{}, errors.Join(fmt.Errorf("draining node %s: %s", out.Node, strings.Join(d.Problems, "; ")), notReplaced(plan, r))
	case !d.Listed:
		out.Result, out.Reason = NotEmptied, "the node's pods could not be listed"
	case remaining > 0:
		out.Result, out.Reason = NotEmptied, "still there at the end: "+podCount(remaining)
	default:
		out.Result = Emptied
	}
	return out, nil
}
