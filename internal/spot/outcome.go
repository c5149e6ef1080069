package spot

import (
	"math"
	"slices"
	"time"
)

// OutcomeVersion is the version of the Outcome's JSON. Within a version, fields can be added but never change meaning.
const OutcomeVersion = 1

// Result is the result of handling an event.
type Result string

const (
	Ignored      Result = "ignored"        // no rule for the event, or nothing to do
	OtherCluster Result = "other-cluster"  // not an instance of this cluster
	Expired      Result = "expired"        // the deadline has passed, and there was nothing to do or it was done
	Missed       Result = "missed"         // the deadline has passed, and no invocation handled the event
	Planned      Result = "planned"        // a preview: nothing was changed
	NodeNotFound Result = "node-not-found" // no node registered for the instance in time
	Drained      Result = "drained"        // all pods that had to leave have left, or the reason says how many are left to their kubelet
	Incomplete   Result = "incomplete"     // some pods were still running at the deadline, or a step failed
	Cordoned     Result = "cordoned"       // only cordoned, by policy
	Skipped      Result = "skipped"        // ignored by policy
	CleanedUp    Result = "cleaned-up"     // the pods of a stopped instance were deleted
	Recovered    Result = "recovered"      // the instance started again, and its node was uncordoned

	ReplacementFailed Result = "replacement-failed" // the group could not launch the replacement of a detached instance
)

// ResultRule says how a result is reported.
type ResultRule struct {
	Result Result
	Failed bool   // shown in red and sent to people; a command that gets it fails
	Metric string // counts it as a failure and has an alarm; may be empty
}

// Results lists all results from the most to the least severe.
var Results = []ResultRule{
	{Result: Missed, Failed: true, Metric: "Missed"},
	{Result: Incomplete, Failed: true, Metric: "Incomplete"},
	{Result: NodeNotFound, Failed: true},
	{Result: ReplacementFailed, Failed: true, Metric: "ReplacementFailed"},
	{Result: Drained},
	{Result: Cordoned},
	{Result: CleanedUp},
	{Result: Recovered},
	{Result: Skipped},
	{Result: Planned},
	{Result: Expired},
	{Result: Ignored},
	{Result: OtherCluster},
}

// rule returns the rule of a result, and its index in Results.
func (r Result) rule() (rule ResultRule, severity int) {
	for i, rule := range Results {
		if rule.Result == r {
			return rule, i
		}
	}
	return ResultRule{Result: r}, len(Results)
}

// Failed reports whether the result is a failure.
func (r Result) Failed() bool { rule, _ := r.rule(); return rule.Failed }

// Uneventful are the results of events that needed nothing from this cluster.
var Uneventful = []Result{OtherCluster, Ignored, Expired}

// ConcernsCluster reports whether the event needed something from this cluster. Nobody needs to see the others.
func (r Result) ConcernsCluster() bool { return !slices.Contains(Uneventful, r) }

// Severity is the lower, the worse the result is.
func (r Result) Severity() int { _, i := r.rule(); return i }

// Outcome is the result of handling an event: what was done and when, and what was not done and why.
type Outcome struct {
	Version         int                `json:"version"`
	Result          Result             `json:"result"`
	Reason          string             `json:"reason,omitempty"`
	Event           EventInfo          `json:"event,omitzero"`
	Cluster         string             `json:"cluster,omitempty"`
	Node            string             `json:"node,omitempty"`
	Instance        InstanceInfo       `json:"instance,omitzero"`
	Deadline        time.Time          `json:"deadline,omitzero"` // when the instance stops
	Plan            *PlanResult        `json:"plan,omitempty"`
	Cordon          *CordonResult      `json:"cordon,omitempty"`
	Replacement     *ReplacementResult `json:"replacement,omitempty"`
	Lifecycle       *LifecycleResult   `json:"lifecycle,omitempty"`
	Cleanup         *CleanupResult     `json:"cleanup,omitempty"`
	FailedLaunch    *FailedLaunch      `json:"failed_launch,omitempty"`
	Timings         Timings            `json:"timings,omitzero"`
	Pods            []PodResult        `json:"pods,omitempty"`
	AttachedVolumes []string           `json:"attached_volumes,omitempty"` // volumes still attached after the drain
	Problems        []string           `json:"problems,omitempty"`
	Unpublished     int                `json:"unpublished,omitempty"` // notifications that could not be published

	// Outcomes contains an outcome for each instance, if the event names several. The other fields repeat the most
	// severe.
	Outcomes []Outcome `json:"outcomes,omitempty"`
}

// EventInfo identifies the event.
type EventInfo struct {
	ID         string    `json:"id,omitempty"`
	Kind       Kind      `json:"kind,omitempty"`
	DetailType string    `json:"detail_type,omitempty"` // EventBridge's detail-type, for an event without a rule
	Instance   string    `json:"instance,omitempty"`
	Group      string    `json:"group,omitempty"` // the Auto Scaling group, for launch-failed
	Time       time.Time `json:"time,omitzero"`
	Rehearsal  bool      `json:"rehearsal,omitempty"`
}

// InstanceInfo describes the instance, as far as it is known.
type InstanceInfo struct {
	Group     string `json:"group,omitempty"`     // the Auto Scaling group
	Type      string `json:"type,omitempty"`      // such as m5.large
	Zone      string `json:"zone,omitempty"`      // the Availability Zone
	Lifecycle string `json:"lifecycle,omitempty"` // spot or on-demand
}

// Seconds is a time in seconds after the event, or a duration in seconds.
type Seconds float64

// ToSeconds rounds a duration to milliseconds.
func ToSeconds(d time.Duration) Seconds { return Seconds(math.Round(d.Seconds()*1000) / 1000) }

// SecondsSince returns t in seconds after the event; nil for the zero time.
func SecondsSince(event, t time.Time) *Seconds {
	if t.IsZero() {
		return nil
	}
	s := ToSeconds(t.Sub(event))
	return &s
}

// PlanResult is the plan when the pods were first listed.
type PlanResult struct {
	Cordon  bool          `json:"cordon"`
	Drain   bool          `json:"drain"`
	Replace ReplaceAction `json:"replace"`
	Group   string        `json:"group,omitempty"`
	Reason  string        `json:"reason,omitempty"` // why there is no replacement
	Pods    []PlannedPod  `json:"pods"`
}

// PlannedPod is the plan for a pod.
type PlannedPod struct {
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	Action      PodAction `json:"action"`
	Reason      string    `json:"reason"`
	GracePeriod Seconds   `json:"grace_period,omitempty"`
	ForceAt     *Seconds  `json:"force_at,omitempty"`

	KubeletAt    *Seconds `json:"kubelet_at,omitempty"`           // if evictions are refused: when its kubelet terminates it
	KubeletGrace Seconds  `json:"kubelet_grace_period,omitempty"` // the grace period that its kubelet then gives
}

// Summary returns the plan for the outcome. The pods are in the order in which they are evicted.
func (p Plan) Summary(in Interruption, cordon bool, pods []Pod, now time.Time) *PlanResult {
	r := &PlanResult{Cordon: cordon, Drain: cordon && p.Drain, Pods: []PlannedPod{}}
	r.SetReplacement(p)
	for _, pod := range slices.SortedFunc(slices.Values(pods), EvictionOrder) {
		plan := p.ForPod(pod, now)
		r.Pods = append(r.Pods, PlannedPod{Namespace: pod.Namespace, Name: pod.Name, Action: plan.Action,
			Reason: plan.Reason, GracePeriod: ToSeconds(plan.GracePeriod), ForceAt: SecondsSince(in.Time, plan.ForceAt),
			KubeletAt: SecondsSince(in.Time, plan.KubeletAt), KubeletGrace: ToSeconds(plan.KubeletGrace)})
	}
	return r
}

// SetReplacement sets how a replacement is requested, which may be known only later.
func (r *PlanResult) SetReplacement(p Plan) {
	r.Replace, r.Group, r.Reason = p.Replace.Action, p.Replace.Group, p.Replace.Reason
}

// CordonResult is the result of the cordon.
type CordonResult struct {
	At    *Seconds `json:"at,omitempty"`
	Error string   `json:"error,omitempty"`
}

// ReplacementResult is the result of requesting a replacement.
type ReplacementResult struct {
	Action          ReplaceAction `json:"action"` // what was done; none if it was refused or not wanted
	Group           string        `json:"group,omitempty"`
	NodeClaim       string        `json:"node_claim,omitempty"`       // the deleted NodeClaim
	AutoscalerEvent string        `json:"autoscaler_event,omitempty"` // the event sent to the autoscaler
	At              *Seconds      `json:"at,omitempty"`
	Reason          string        `json:"reason,omitempty"`
	SkippedHooks    []string      `json:"skipped_hooks,omitempty"`

	Changed bool `json:"-"` // a request was sent that cannot be undone
}

// Timings are the times of the steps, in seconds after the event.
type Timings struct {
	Started      *Seconds `json:"started,omitempty"`       // the handler received the event
	Located      *Seconds `json:"located,omitempty"`       // the node was found
	Cordoned     *Seconds `json:"cordoned,omitempty"`      // the node was cordoned
	LastEviction *Seconds `json:"last_eviction,omitempty"` // the last eviction was accepted
	Empty        *Seconds `json:"empty,omitempty"`         // the last pod that had to leave left
	Finished     *Seconds `json:"finished,omitempty"`      // the handler returned
}

// PodStatus is what happened to a pod.
type PodStatus string

const (
	PodSkipped       PodStatus = "skipped"         // left on the node, by rule
	PodEvicted       PodStatus = "evicted"         // evicted and gone
	PodForceDeleted  PodStatus = "force-deleted"   // deleted regardless of its PodDisruptionBudget, and gone
	PodTerminated    PodStatus = "terminated"      // gone without a request from kops-spot
	PodStuck         PodStatus = "stuck"           // its containers have stopped, but a finalizer or the kubelet keeps it
	PodDeleted       PodStatus = "deleted"         // deleted after its instance had stopped
	PodStillRunning  PodStatus = "still-running"   // still running at the deadline
	PodLeftToKubelet PodStatus = "left-to-kubelet" // still there at the deadline because of its budget or grace period, and covered by the kubelet's shutdown window
)

// PodResult is what happened to a pod, and why.
type PodResult struct {
	Namespace    string    `json:"namespace"`
	Name         string    `json:"name"`
	UID          string    `json:"uid"`
	Owner        string    `json:"owner,omitempty"` // kind/name
	Status       PodStatus `json:"status"`
	Reason       string    `json:"reason"`
	GracePeriod  Seconds   `json:"grace_period,omitempty"`  // of the accepted request
	RequestedAt  *Seconds  `json:"requested_at,omitempty"`  // when the eviction or deletion was accepted
	TerminatedAt *Seconds  `json:"terminated_at,omitempty"` // when the pod was gone
	Refusals     int       `json:"refusals,omitempty"`      // failed requests
	LastRefusal  string    `json:"last_refusal,omitempty"`
	DisruptedBy  string    `json:"disrupted_by,omitempty"` // reason of the pod's condition DisruptionTarget
	LocalData    bool      `json:"local_data,omitempty"`   // it had an emptyDir on the node's disk
	Finalizers   []string  `json:"finalizers,omitempty"`   // of a pod that is not gone
}

// CleanupResult contains the times of the steps of a clean-up, in seconds after the event.
type CleanupResult struct {
	Tainted         *Seconds `json:"tainted,omitempty"`          // the out-of-service taint was applied
	PodsDeleted     *Seconds `json:"pods_deleted,omitempty"`     // the last pod was deleted
	VolumesDetached *Seconds `json:"volumes_detached,omitempty"` // the last volume was detached
	NodeDeleted     *Seconds `json:"node_deleted,omitempty"`     // kops-spot deleted the node

	NodeDeletedBy NodeDeletedBy `json:"node_deleted_by,omitempty"` // empty if it still exists or nobody knows
}

// NodeDeletedBy is who deleted the node of a stopped instance.
type NodeDeletedBy string

const (
	DeletedByKopsSpot NodeDeletedBy = "kops-spot"
	// deleted by the cloud controller or another client. If `tainted` is missing too, the node was deleted before this
	// invocation could taint it.
	DeletedByCloudController NodeDeletedBy = "cloud-controller"
)

// LifecycleResult is the result of a lifecycle action.
type LifecycleResult struct {
	Hook       string   `json:"hook"`
	Group      string   `json:"group"`
	Heartbeats int      `json:"heartbeats,omitempty"`
	Completed  *Seconds `json:"completed,omitempty"`
	Reason     string   `json:"reason,omitempty"` // why it was not completed
}

// FailedLaunch is a launch that failed while the group lacked the replacement of a detached instance.
type FailedLaunch struct {
	Message  string   `json:"message"`  // Auto Scaling's own
	Desired  int      `json:"desired"`  // instances that the group wants
	Present  int      `json:"present"`  // instances in service or pending
	Detached []string `json:"detached"` // the instances that were detached
}

// SetReplacement records r and reports whether it changed anything.
func (o *Outcome) SetReplacement(r ReplacementResult) (changed bool) {
	changed, r.Changed = r.Changed, false
	o.Replacement = &r
	return changed
}
