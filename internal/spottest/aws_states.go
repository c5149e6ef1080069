package spottest

import (
	"slices"
	"time"
)

// InstanceTimes are the durations of transitional states.
type InstanceTimes struct {
	Start    time.Duration // pending, after StartInstance
	ShutDown time.Duration // shutting-down
}

// SetInstanceTimes sets the times from now on. The defaults are 10 s and 20 s.
func (a *AWS) SetInstanceTimes(t InstanceTimes) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times = t
}

// SetState sets the state of an instance. Its group does not notice.
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
	awsRequire(slices.Contains([]string{"pending", "running", "stopping", "stopped", "shutting-down", "terminated"},
		state),
		"EC2 has no instance state %q", state)
}

// StartInstance starts a stopped instance.
func (a *AWS) StartInstance(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.mustInstance(id)
	awsRequire(i.State == "stopped", "instance %s is %s: it cannot be started", id, i.State)
	i.State = "pending"
	a.later(a.times.Start, i, "pending", func() { i.State = "running" })
}

func (a *AWS) shutDown(i *Instance) {
	i.State = "shutting-down"
	a.later(a.times.ShutDown, i, "shutting-down", func() { a.terminated(i) })
}

// later runs do after d if the instance is still in this state.
func (a *AWS) later(d time.Duration, i *Instance, state string, do func()) {
	time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if i.State == state {
			do()
		}
	})
}

// terminated clears the name and address of an instance and removes it from the group that terminated it.
func (a *AWS) terminated(i *Instance) {
	i.State, i.PrivateDNSName, i.PrivateIP = "terminated", "", ""
	if m := a.member(i.ID); m != nil && m.State == "Terminating:Proceed" {
		a.leave(i.ID)
	}
}
