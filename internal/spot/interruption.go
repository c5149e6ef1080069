package spot

import "time"

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
	lead   time.Duration // from the event's time to the end of the machine
	force  bool          // a pod that a budget guards may be deleted past it, because the machine ends anyway
	detach bool          // the group may be asked for a replacement, because the instance never comes back
	once   bool          // every pod is asked once, with its own whole grace period, and no refusal is argued with
	open   bool          // nobody ends the machine: no grace period is cut, and the work ends with the invocation
	after  bool          // it speaks of what has happened: the aftermath
	keep   string        // why the group is not asked, where it is not
	tell   string        // what CAST AI's autoscaler is told
	notice string        // the event in words
}

// meanings is the one table of what events mean.
//
// AWS gives the two-minute notice for terminate and stop; hibernation begins at once, so its lead is only how long the
// handler stays to watch: a hibernated pod finishes its termination when the instance resumes. The lead of a lifecycle
// action is its hook's; the one here counts where the hook cannot be read. A scheduled change brings its own moment.
var eventRules = map[Kind]eventRule{
	SpotTerminate: {lead: 120 * time.Second, force: true, detach: true, tell: AutoscalerInterrupted, notice: "EC2 terminates the Spot instance"},
	SpotStop: {lead: 120 * time.Second, force: true, tell: AutoscalerInterrupted, notice: "EC2 stops the Spot instance",
		keep: "EC2 stops the Spot instance: it may come back"},
	SpotHibernate: {lead: 20 * time.Second, once: true, tell: AutoscalerInterrupted, notice: "EC2 hibernates the Spot instance",
		keep: "EC2 hibernates the Spot instance: it may come back"},
	LifecycleTerminate: {lead: 120 * time.Second, force: true, notice: "its Auto Scaling group terminates the instance",
		keep: "its group decides by itself whether it launches another"},
	Rebalance: {open: true, tell: AutoscalerRebalance, notice: "EC2 recommends to leave the Spot instance",
		keep: "it is only a recommendation: nobody would end the instance that a detach leaves over"},
	ScheduledChange: {notice: "AWS Health announces a change of the instance",
		keep: "it is only an announcement: nobody would end the instance that a detach leaves over"},
	StateChange: {after: true, notice: "the instance has changed its state", keep: "the instance has gone already"},
}

// Notice says in words what the event announces.
func (k Kind) Description() string { return eventRules[k].notice }

// ruleFor is the meaning of an event. Nobody takes a rehearsal's machine: nothing is forced, replaced or told.
func ruleFor(in Interruption) eventRule {
	m := eventRules[in.Kind]
	if in.Rehearsal {
		m.force, m.detach, m.tell, m.keep = false, false, "", "it is a rehearsal"
	}
	return m
}
