package sim

import (
	"slices"
	"time"
)

// InstanceTimes is how long instances are in the states between others.
type InstanceTimes struct {
	Start    time.Duration // pending, after StartInstance
	Stop     time.Duration // stopping
	ShutDown time.Duration // shutting-down
}

// SetInstanceTimes sets how long instances start, stop and shut down from now on; without it, 10 s, 20 s and 20 s.
func (a *AWS) SetInstanceTimes(t InstanceTimes) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times = t
}

// SetState sets the state of an instance, whatever it was. A group learns of it by its health check only.
func (a *AWS) SetState(id, state string) {
	mustBeState(state)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	if state == "terminated" {
		a.terminated(i)
	}
	i.State = state
	if state != "running" && state != "pending" {
		a.healthCheckLater(id)
	}
}

func mustBeState(state string) {
	awsMust(slices.Contains([]string{"pending", "running", "stopping", "stopped", "shutting-down", "terminated"}, state),
		"EC2 has no instance state %q", state)
}

// StopInstance has a running instance stop, which takes a while. It keeps its name and its addresses.
func (a *AWS) StopInstance(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	awsMust(i.State == "running", "instance %s is %s: it cannot be stopped", id, i.State)
	a.stop(i)
}

func (a *AWS) stop(i *Instance) {
	i.State = "stopping"
	a.healthCheckLater(i.ID)
	a.later(a.times.Stop, i, "stopping", func() { i.State = "stopped" })
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

// Reclaim has EC2 take a Spot instance back after d, as an interruption notice has said: by "terminate", "stop" or
// "hibernate", whichever it was launched with. If it does not run any more then, nothing is left to take.
func (a *AWS) Reclaim(id, action string, d time.Duration) {
	awsMust(slices.Contains([]string{"terminate", "stop", "hibernate"}, action), "EC2 has no interruption behavior %q", action)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	awsMust(i.Spot, "instance %s is not Spot", id)
	a.later(d, i, "running", func() {
		if action == "terminate" {
			a.shutDown(i)
			return
		}
		a.stop(i)
	})
}

// shutDown begins the end of an instance, unless it has begun.
func (a *AWS) shutDown(i *Instance) {
	if i.State == "shutting-down" || i.State == "terminated" {
		return
	}
	i.State = "shutting-down"
	a.healthCheckLater(i.ID)
	a.later(a.times.ShutDown, i, "shutting-down", func() { a.terminated(i) })
}

// later does what is to be done after d, if the instance is in this state then, and EC2 has not forgotten it.
func (a *AWS) later(d time.Duration, i *Instance, state string, do func()) {
	time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.instances[i.ID] == i && i.State == state {
			do()
		}
	})
}

// terminated ends an instance: it has no name and no address any more. A group that has ended it lets it go now.
func (a *AWS) terminated(i *Instance) {
	i.State, i.PrivateDNSName, i.PrivateIP = "terminated", "", ""
	if m := a.member(i.ID); m != nil && (m.State == "Terminating" || m.State == "Terminating:Proceed") {
		a.leave(i.ID)
		a.finish(i.ID)
	}
}
