package spot

import (
	"math"
	"time"
)

// OutcomeVersion is the version of the Outcome's JSON form. Fields may be added within a version, never change meaning.
const OutcomeVersion = 1

// Result is what came of an interruption, in one word.
type Result string

const (
	Ignored      Result = "ignored"        // not an event that the handler has a rule for
	OtherCluster Result = "other-cluster"  // not this cluster's instance
	Expired      Result = "expired"        // the event speaks of the past
	Planned      Result = "planned"        // nothing was changed; the outcome says what would have been
	NodeNotFound Result = "node-not-found" // the instance is ours, but no node of it registered in time
	Drained      Result = "drained"        // every pod that had to leave the node has left it
	Incomplete   Result = "incomplete"     // some pods were still there at the end, or the node could not be worked on
	Cordoned     Result = "cordoned"       // the node was cordoned, and its pods were left, by policy
	Skipped      Result = "skipped"        // the node is ours, and was left as it is, by policy
	CleanedUp    Result = "cleaned-up"     // after the machine's end: its pods and volumes were given free
	Recovered    Result = "recovered"      // the instance is back, and our marks are gone
)

// Outcome is all that is told of an interruption: what was done, when, and what was left undone and why.
type Outcome struct {
	Version         int                `json:"version"`
	Result          Result             `json:"result"`
	Reason          string             `json:"reason,omitempty"`
	Event           EventInfo          `json:"event,omitzero"`
	Cluster         string             `json:"cluster,omitempty"`
	Node            string             `json:"node,omitempty"`
	Deadline        time.Time          `json:"deadline,omitzero"` // the end of the machine
	Plan            *PlanResult        `json:"plan,omitempty"`
	Cordon          *CordonResult      `json:"cordon,omitempty"`
	Replacement     *ReplacementResult `json:"replacement,omitempty"`
	Lifecycle       *LifecycleResult   `json:"lifecycle,omitempty"`
	Cleanup         *CleanupResult     `json:"cleanup,omitempty"`
	Timings         Timings            `json:"timings,omitzero"`
	Pods            []PodResult        `json:"pods,omitempty"`
	AttachedVolumes []string           `json:"attached_volumes,omitempty"` // volumes that were still attached when the pods had gone
	Problems        []string           `json:"problems,omitempty"`

	// Each are the outcomes of an event about several instances, one each; what stands above is the gravest of them.
	Outcomes []Outcome `json:"outcomes,omitempty"`
}

// EventInfo is the event that an outcome is of.
type EventInfo struct {
	ID         string    `json:"id,omitempty"`
	Kind       Kind      `json:"kind,omitempty"`
	DetailType string    `json:"detail_type,omitempty"` // EventBridge's detail-type, where the handler has no rule for it
	Instance   string    `json:"instance,omitempty"`
	Time       time.Time `json:"time,omitzero"`
}

// Seconds is a moment, in seconds after the event, or a length of time.
type Seconds float64

func ToSeconds(d time.Duration) Seconds { return Seconds(math.Round(d.Seconds()*1000) / 1000) }

// since is the moment t in seconds after the event; nil if t never came.
func SecondsSince(event, t time.Time) *Seconds {
	if t.IsZero() {
		return nil
	}
	s := ToSeconds(t.Sub(event))
	return &s
}

// PlanResult is what was decided at the beginning. It is the same whether the plan was then carried out or not.
type PlanResult struct {
	Cordon  bool          `json:"cordon"`
	Drain   bool          `json:"drain"`
	Replace ReplaceAction `json:"replace"`
	Group   string        `json:"group,omitempty"`
	Reason  string        `json:"reason,omitempty"` // why there is no replacement
	Pods    []PlannedPod  `json:"pods"`
}

// PlannedPod is what was decided about a pod.
type PlannedPod struct {
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	Action      PodAction `json:"action"`
	Reason      string    `json:"reason"`
	GracePeriod Seconds   `json:"grace_period,omitempty"`
	ForceAt     *Seconds  `json:"force_at,omitempty"`
}

// told is the plan in the outcome's words.
func (p Plan) Summary(in Interruption, cordon bool, fates []PlanOfPod) *PlanResult {
	told := &PlanResult{Cordon: cordon, Drain: cordon && p.Drain, Pods: []PlannedPod{}}
	told.SetReplacement(p)
	for _, f := range fates {
		told.Pods = append(told.Pods, PlannedPod{Namespace: f.Pod.Namespace, Name: f.Pod.Name, Action: f.Plan.Action,
			Reason: f.Plan.Reason, GracePeriod: ToSeconds(f.Plan.GracePeriod), ForceAt: SecondsSince(in.Time, f.Plan.ForceAt)})
	}
	return told
}

// replace takes in who is asked for a replacement, as far as that is decided by now.
func (t *PlanResult) SetReplacement(p Plan) {
	t.Replace, t.Group, t.Reason = p.Replace.Action, p.Replace.Group, p.Replace.Reason
}

// CordonResult is what became of the cordon.
type CordonResult struct {
	At    *Seconds `json:"at,omitempty"`
	Error string   `json:"error,omitempty"`
}

// ReplacementResult is what became of asking for a replacement.
type ReplacementResult struct {
	Action          ReplaceAction `json:"action"` // what was done: none, if it was refused or not wanted
	Group           string        `json:"group,omitempty"`
	NodeClaim       string        `json:"node_claim,omitempty"`       // the NodeClaim that was deleted
	AutoscalerEvent string        `json:"autoscaler_event,omitempty"` // what the autoscaler was told
	At              *Seconds      `json:"at,omitempty"`
	Reason          string        `json:"reason,omitempty"`
	SkippedHooks    []string      `json:"skipped_hooks,omitempty"`

	Instance     string   `json:"instance,omitempty"`      // the instance that the group launches instead
	LaunchedAt   *Seconds `json:"launched_at,omitempty"`   // when it began to
	Node         string   `json:"node,omitempty"`          // its node
	RegisteredAt *Seconds `json:"registered_at,omitempty"` // when the node had registered
	GroupMessage string   `json:"group_message,omitempty"` // why there is no instance, in the group's own words

	Changed bool `json:"-"` // something was asked for that cannot be taken back
}

// Timings are the moments by which a drain is judged, in seconds after the event.
type Timings struct {
	Started      *Seconds `json:"started,omitempty"`       // the handler got the event
	Located      *Seconds `json:"located,omitempty"`       // the node was found
	Cordoned     *Seconds `json:"cordoned,omitempty"`      // no new pods from here on
	LastEviction *Seconds `json:"last_eviction,omitempty"` // the last pod was told to end
	Empty        *Seconds `json:"empty,omitempty"`         // the last pod that had to leave had left
	Finished     *Seconds `json:"finished,omitempty"`      // the handler returned
}

// PodStatus is what became of a pod.
type PodStatus string

const (
	PodSkipped      PodStatus = "skipped"       // it stays, by rule
	PodEvicted      PodStatus = "evicted"       // it was evicted and has gone
	PodForceDeleted PodStatus = "force-deleted" // it was deleted past its budget and has gone
	PodTerminated   PodStatus = "terminated"    // it went without our asking
	PodStuck        PodStatus = "stuck"         // its containers have ended, but a finalizer keeps its object
	PodDeleted      PodStatus = "deleted"       // its object was deleted after its machine had stopped
	PodStillRunning PodStatus = "still-running" // it was still there at the end
)

// PodResult is what became of a pod of the node, and why.
type PodResult struct {
	Namespace    string    `json:"namespace"`
	Name         string    `json:"name"`
	UID          string    `json:"uid"`
	Owner        string    `json:"owner,omitempty"` // kind/name
	Status       PodStatus `json:"status"`
	Reason       string    `json:"reason"`
	GracePeriod  Seconds   `json:"grace_period,omitempty"`  // the grace period it was told to end with
	RequestedAt  *Seconds  `json:"requested_at,omitempty"`  // when it was told to end
	TerminatedAt *Seconds  `json:"terminated_at,omitempty"` // when it had gone
	Refusals     int       `json:"refusals,omitempty"`      // how often the request failed
	LastRefusal  string    `json:"last_refusal,omitempty"`
	DisruptedBy  string    `json:"disrupted_by,omitempty"` // who began to end it, as Kubernetes names it in the condition DisruptionTarget
	LocalData    bool      `json:"local_data,omitempty"`   // it had an emptyDir on the node's disk, which ends with it
	Finalizers   []string  `json:"finalizers,omitempty"`   // what keeps its object
}

// CleanupResult is when the parts of a clean-up were done, in seconds after the event.
type CleanupResult struct {
	Tainted         *Seconds `json:"tainted,omitempty"`          // Kubernetes was told that the machine has stopped
	PodsDeleted     *Seconds `json:"pods_deleted,omitempty"`     // the last pod's object was gone
	VolumesDetached *Seconds `json:"volumes_detached,omitempty"` // the last volume could be attached elsewhere
	NodeDeleted     *Seconds `json:"node_deleted,omitempty"`
}

// LifecycleResult is what became of a lifecycle action.
type LifecycleResult struct {
	Hook       string   `json:"hook"`
	Group      string   `json:"group"`
	Heartbeats int      `json:"heartbeats,omitempty"` // how often the end was put off
	Completed  *Seconds `json:"completed,omitempty"`  // when the group was let go on
	Reason     string   `json:"reason,omitempty"`     // why it was not
}

// SetReplacement records r and reports whether it changed anything.
func (o *Outcome) SetReplacement(r ReplacementResult) (changed bool) {
	changed, r.Changed = r.Changed, false
	o.Replacement = &r
	return changed
}
