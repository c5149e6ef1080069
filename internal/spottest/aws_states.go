package spottest

import (
	"slices"
	"time"
)

// InstanceTimes is how long instances are in the states between others.
type InstanceTimes struct {
	Start    time.Duration // pending, after StartInstance
	ShutDown time.Duration // shutting-down
}

// SetInstanceTimes sets how long instances start and shut down from now on; without it, 10 s and 20 s.
func (a *AWS) SetInstanceTimes(t InstanceTimes) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times = t
}

// SetState sets the state of an instance, whatever it was. Its group does not learn of it.
func (a *AWS) SetState(id, state string) {
	mustBeState(state)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	if state == "terminated" {
		a.terminated(i)
	}
	i.State = state
}

func mustBeState(state string) {
	awsMust(slices.Contains([]string{"pending", "running", "stopping", "stopped", "shutting-down", "terminated"}, state),
		"EC2 has no instance state %q", state)
}

// StartInstance has a stopped instance run again, which takes a while.
func (a *AWS) StartInstance(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	awsMust(i.State == "stopped", "instance %s is %s: it cannot be started", id, i.State)
	i.State = "pending"
	a.later(a.times.Start, i, "pending", func() { i.State = "running" })
}

// shutDown begins the end of an instance.
func (a *AWS) shutDown(i *Instance) {
	i.State = "shutting-down"
	a.later(a.times.ShutDown, i, "shutting-down", func() { a.terminated(i) })
}

// later does what is to be done after d, if the instance is in this state then.
func (a *AWS) later(d time.Duration, i *Instance, state string, do func()) {
	time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if i.State == state {
			do()
		}
	})
}

// terminated ends an instance: it has no name and no address any more. A group that has ended it lets it go now.
func (a *AWS) terminated(i *Instance) {
	i.State, i.PrivateDNSName, i.PrivateIP = "terminated", "", ""
	if m := a.member(i.ID); m != nil && m.State == "Terminating:Proceed" {
		a.leave(i.ID)
		a.finish(i.ID)
	}
}
