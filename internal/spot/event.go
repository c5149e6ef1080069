package spot

import (
	"maps"
	"slices"
	"time"
)

// Interruption is one event about one EC2 instance.
type Interruption struct {
	EventID   string    // EventBridge's id; the same for every delivery and retry of one event
	Kind      Kind      // what is going to happen to the instance, or has happened
	Instance  string    // the EC2 instance id
	Account   string    // the AWS account the event comes from
	Region    string    // the AWS region the event comes from
	Time      time.Time // when AWS sent it
	Replayed  bool      // EventBridge took it from an archive: it speaks of the past
	Rehearsal bool      // somebody practises: nobody takes the machine

	Action Action    // LifecycleTerminate: the action that a hook holds
	Start  time.Time // ScheduledChange: when AWS begins
	State  string    // StateChange: the state that the event speaks of
}

// Kind is what an event announces.
type Kind string

const (
	SpotTerminate      Kind = "spot-terminate"
	SpotStop           Kind = "spot-stop"
	SpotHibernate      Kind = "spot-hibernate"
	LifecycleTerminate Kind = "lifecycle-terminate"
	Rebalance          Kind = "rebalance-recommendation"
	ScheduledChange    Kind = "scheduled-change"
	StateChange        Kind = "state-change"
)

// meaning is what a Kind of event allows us to do, and until when.
type eventRule struct {
	notice          time.Duration // from the event's time to the end of the machine
	force           bool          // a pod that a budget guards may be deleted past it, because the machine ends anyway
	detach          bool          // the group may be asked for a replacement, because the instance never comes back
	evictOnce       bool          // every pod is asked once, with its own whole grace period, and no refusal is argued with
	noDeadline      bool          // nobody ends the machine: no grace period is cut, and the work ends with the invocation
	isCleanup       bool          // it speaks of what has happened: the clean-up
	noReplaceReason string        // why the group is not asked, where it is not
	autoscalerEvent string        // what CAST AI's autoscaler is told
	description     string        // the event in words
}

// meanings is the one table of what events mean.
//
// AWS gives the two-minute notice for terminate and stop; hibernation begins at once, so its lead is only how long the
// handler stays to watch: a hibernated pod finishes its termination when the instance resumes. The lead of a lifecycle
// action is its hook's; the one here counts where the hook cannot be read. A scheduled change brings its own moment.
var eventRules = map[Kind]eventRule{
	SpotTerminate: {notice: 120 * time.Second, force: true, detach: true, autoscalerEvent: AutoscalerInterrupted, description: "EC2 terminates the Spot instance"},
	SpotStop: {notice: 120 * time.Second, force: true, autoscalerEvent: AutoscalerInterrupted, description: "EC2 stops the Spot instance",
		noReplaceReason: "EC2 stops the Spot instance: it may come back"},
	SpotHibernate: {notice: 20 * time.Second, evictOnce: true, autoscalerEvent: AutoscalerInterrupted, description: "EC2 hibernates the Spot instance",
		noReplaceReason: "EC2 hibernates the Spot instance: it may come back"},
	LifecycleTerminate: {notice: 120 * time.Second, force: true, description: "its Auto Scaling group terminates the instance",
		noReplaceReason: "its group decides by itself whether it launches another"},
	Rebalance: {noDeadline: true, autoscalerEvent: AutoscalerRebalance, description: "EC2 recommends to leave the Spot instance",
		noReplaceReason: "it is only a recommendation: nobody would end the instance that a detach leaves over"},
	ScheduledChange: {description: "AWS Health announces a change of the instance",
		noReplaceReason: "it is only an announcement: nobody would end the instance that a detach leaves over"},
	StateChange: {isCleanup: true, description: "the instance has changed its state", noReplaceReason: "the instance has gone already"},
}

// Notice says in words what the event announces.
func (k Kind) Description() string { return eventRules[k].description }

// ruleFor is the meaning of an event. Nobody takes a rehearsal's machine: nothing is forced, replaced or told.
func ruleFor(in Interruption) eventRule {
	m := eventRules[in.Kind]
	if in.Rehearsal {
		m.force, m.detach, m.autoscalerEvent, m.noReplaceReason = false, false, "", "it is a rehearsal"
	}
	return m
}

// noticeOfChange is how long before a scheduled change an imagined announcement of it comes. AWS gives days or weeks.
const noticeOfChange = 7 * 24 * time.Hour

// Warnings are the kinds of events that say what is going to happen to an instance.
func WarningKinds() []Kind {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(eventRules)), func(k Kind) bool { return eventRules[k].isCleanup })
}

// ExampleEvent is a warning of the kind as it would be if it came at the moment when it is first looked at: it is dated
// ahead, and what comes from the future counts as sent then.
func (p Policy) ExampleEvent(k Kind, instance, region string, now time.Time) Interruption {
	in := Interruption{Kind: k, Instance: instance, Region: region, Time: now.Add(time.Hour)}
	switch k {
	case ScheduledChange:
		in.Start = now.Add(noticeOfChange)
	case LifecycleTerminate:
		in.Action = Action{Group: "its group", Hook: "of any name", Instance: instance}
		if len(p.Hooks) > 0 {
			in.Action.Hook = p.Hooks[0]
		}
	}
	return in
}

// IsCleanup reports whether events of this kind report a state change that has already happened.
func (k Kind) IsCleanup() bool { return eventRules[k].isCleanup }

// AllowsDetach reports whether the instance may be detached from its Auto Scaling group.
func (in Interruption) AllowsDetach() bool { return ruleFor(in).detach }
