package spot

import "time"

// Interruption is one event about one EC2 instance.
type Interruption struct {
	EventID  string    // EventBridge's id; the same for every delivery and retry of one event
	Kind     Kind      // what is going to happen to the instance
	Instance string    // the EC2 instance id
	Account  string    // the AWS account the event comes from
	Region   string    // the AWS region the event comes from
	Time     time.Time // when EC2 sent it
	Replayed bool      // EventBridge took it from an archive: it speaks of the past
}

// Kind is what an event announces.
type Kind string

const (
	SpotTerminate Kind = "spot-terminate"
	SpotStop      Kind = "spot-stop"
	SpotHibernate Kind = "spot-hibernate"
)

// meaning is what a Kind of event allows us to do, and until when.
type meaning struct {
	lead   time.Duration // from the event's time to the end of the machine
	force  bool          // a pod that a budget guards may be deleted past it, because the machine ends anyway
	detach bool          // the group may be asked for a replacement, because the instance never comes back
	once   bool          // every pod is asked once, with its own whole grace period, and no refusal is argued with
	notice string        // the event in words
}

// meanings is the one table of what events mean.
//
// AWS gives the two-minute notice for terminate and stop; hibernation begins at once, so its lead is only how long the
// handler stays to watch: a hibernated pod finishes its termination when the instance resumes.
var meanings = map[Kind]meaning{
	SpotTerminate: {lead: 120 * time.Second, force: true, detach: true, notice: "EC2 terminates the Spot instance"},
	SpotStop:      {lead: 120 * time.Second, force: true, notice: "EC2 stops the Spot instance"},
	SpotHibernate: {lead: 20 * time.Second, once: true, notice: "EC2 hibernates the Spot instance"},
}

// Notice says in words what the event announces.
func (k Kind) Notice() string { return meanings[k].notice }
