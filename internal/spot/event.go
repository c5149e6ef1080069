package spot

import (
	"maps"
	"slices"
	"time"
)

// Interruption is an event about one EC2 instance or, if its kind is LaunchFailed, about an Auto Scaling group.
type Interruption struct {
	EventID   string // EventBridge's ID; the same for every delivery of the event
	Kind      Kind
	Instance  string // EC2 instance ID; empty for LaunchFailed
	Account   string // AWS account of the event
	Region    string // AWS Region of the event
	Time      time.Time
	Replayed  bool // replayed from an event archive
	Rehearsal bool // sent by kops-spot rehearse: nothing happens to the instance

	Action Action    // LifecycleTerminate: the lifecycle action
	Start  time.Time // ScheduledChange: when the change starts
	State  string    // StateChange: the new state

	Group   string // LaunchFailed: the Auto Scaling group
	Message string // LaunchFailed: why, in Auto Scaling's words
}

// Subject names what the event is about.
func (in Interruption) Subject() string {
	if in.Kind == LaunchFailed {
		return "group " + in.Group
	}
	return "instance " + in.Instance
}

// Kind is the kind of an event.
type Kind string

const (
	SpotTerminate      Kind = "spot-terminate"
	SpotStop           Kind = "spot-stop"
	SpotHibernate      Kind = "spot-hibernate"
	LifecycleTerminate Kind = "lifecycle-terminate"
	Rebalance          Kind = "rebalance-recommendation"
	ScheduledChange    Kind = "scheduled-change"
	StateChange        Kind = "state-change"
	LaunchFailed       Kind = "launch-failed"
)

// eventRule is what a kind of event allows.
type eventRule struct {
	notice          time.Duration // from the event's time to the deadline
	force           bool          // pods may be force-deleted, because the instance stops anyway
	detach          bool          // the instance may be detached from its group, because it does not come back
	shutdown        bool          // at the deadline, EC2 shuts down the operating system: Policy.ShutdownGrace applies
	evictOnce       bool          // each pod is evicted once, with its full grace period
	noDeadline      bool          // nothing stops the instance: no grace period is cut
	limit           time.Duration // of the work, if the event has no deadline: then an error, and Lambda retries
	noReplaceReason string        // why the instance is not detached
	autoscalerEvent string        // event to send to CAST AI's autoscaler; empty for none
	description     string
}

// eventRules lists the rules of all kinds.
//
// AWS gives two minutes of notice for terminate and stop. Hibernation starts at once: its notice is how long the
// handler watches the pods, which continue to terminate when the instance resumes. A lifecycle action's notice is its
// hook's heartbeat timeout; the one below applies if the hook cannot be read. A scheduled change has a start time; it
// may stop the hardware without a shutdown.
var eventRules = map[Kind]eventRule{
	SpotTerminate: {notice: 120 * time.Second, force: true, detach: true, shutdown: true,
		autoscalerEvent: AutoscalerInterrupted, description: "EC2 terminates the Spot instance"},
	SpotStop: {notice: 120 * time.Second, force: true, shutdown: true, autoscalerEvent: AutoscalerInterrupted,
		description: "EC2 stops the Spot instance", noReplaceReason: "EC2 stops the instance and may start it again"},
	SpotHibernate: {notice: 20 * time.Second, evictOnce: true, autoscalerEvent: AutoscalerInterrupted,
		description: "EC2 hibernates the Spot instance", noReplaceReason: "EC2 hibernates the instance and may resume it"},
	LifecycleTerminate: {notice: 120 * time.Second, force: true, shutdown: true,
		description: "the Auto Scaling group terminates the instance", noReplaceReason: "the Auto Scaling group decides"},
	Rebalance: {noDeadline: true, autoscalerEvent: AutoscalerRebalance,
		description:     "EC2 recommends replacing the Spot instance",
		noReplaceReason: "only a recommendation: after a detach, the instance would keep running"},
	ScheduledChange: {description: "AWS Health announces a scheduled change of the instance",
		noReplaceReason: "only an announcement: after a detach, the instance would keep running"},
	StateChange: {limit: 20 * time.Second, description: "the instance changed state",
		noReplaceReason: "the instance has already stopped"},
	LaunchFailed: {limit: 20 * time.Second, description: "the Auto Scaling group could not launch an instance"},
}

// Description describes the kind of event in a clause.
func (k Kind) Description() string { return eventRules[k].description }

// ruleFor returns the rule of an event. A rehearsal forces, detaches and notifies nothing, and no shutdown follows it.
func ruleFor(in Interruption) eventRule {
	rule := eventRules[in.Kind]
	if in.Rehearsal {
		rule.force, rule.detach, rule.shutdown = false, false, false
		rule.autoscalerEvent, rule.noReplaceReason = "", "rehearsal"
	}
	return rule
}

// EndsInstance reports whether EC2 ends the instance at the deadline.
func (k Kind) EndsInstance() bool { return k == SpotTerminate || k == SpotStop || k == SpotHibernate }

// Limit returns the limit of the work for an event without a deadline, and zero for other events. Until then, EC2 and
// the cluster must have responded. Otherwise, the invocation fails and Lambda retries: it holds no slot while it waits.
func (k Kind) Limit() time.Duration { return eventRules[k].limit }

// AllowsDetach reports whether the instance may be detached from its Auto Scaling group.
func (in Interruption) AllowsDetach() bool { return ruleFor(in).detach }

// WarningKinds returns the kinds of events that announce something.
func WarningKinds() []Kind {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(eventRules)), func(k Kind) bool { return k.Limit() > 0 })
}

// changeNotice is the notice of an example ScheduledChange. AWS gives days or weeks.
const changeNotice = 7 * 24 * time.Hour

// ExampleEvent returns a warning of the kind for a preview. Its time is in the future, which counts as the time at
// which it is handled.
func (p Policy) ExampleEvent(k Kind, instance, region string, now time.Time) Interruption {
	in := Interruption{Kind: k, Instance: instance, Region: region, Time: now.Add(time.Hour)}
	switch k {
	case ScheduledChange:
		in.Start = now.Add(changeNotice)
	case LifecycleTerminate:
		in.Action = Action{Group: "<group>." + p.Cluster, Hook: "<hook>", Instance: instance}
		if len(p.Hooks) > 0 {
			in.Action.Hook = p.Hooks[0]
		}
	}
	return in
}
