package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Group is an Auto Scaling group.
//
// It keeps as many members as it desires: those Pending and InService count. Whenever there are fewer it launches, at
// once, unless the process Launch is suspended or LaunchError is set. It never removes a member that is too many.
type Group struct {
	Name              string
	Min, Max, Desired int
	Tags              map[string]string // all are put on its instances
	Suspended         []string          // processes, by a user or by AWS itself: Launch, Terminate, HealthCheck, …
	Hooks             []Hook            // only described, never run: a detached instance skips those for its end anyway

	Zones []string // it launches in turn in these; the region's a if empty
	Spot  bool     // what it launches is Spot

	LaunchTime  time.Duration // from pending to running and InService
	LaunchError string        // not empty: launches fail with this code, e.g. InsufficientInstanceCapacity
	DetachTime  time.Duration // how long a member is Detaching; AWS: the load balancers' deregistration delay
	HealthCheck time.Duration // how long after a member stopped running the group replaces it; 0: it never looks

	Members []Member // what it is described with; not for AddGroup
}

// Hook is a lifecycle hook.
type Hook struct {
	Name       string
	Transition string        // HookLaunching or HookTerminating
	Heartbeat  time.Duration // whole seconds, 30 s to 2 h
}

// The transitions that hooks are for.
const (
	HookLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	HookTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Member is an instance's place in a group.
type Member struct {
	ID    string
	Group string
	Zone  string
	State string // LifecycleState: Pending, InService, Standby, Detaching, Terminating, Terminating:Wait, …
}

func (g *Group) clone() Group {
	c := *g
	c.Tags = maps.Clone(g.Tags)
	c.Suspended = slices.Clone(g.Suspended)
	c.Hooks = slices.Clone(g.Hooks)
	c.Zones = slices.Clone(g.Zones)
	c.Members = slices.Clone(g.Members)
	return c
}

// AddGroup adds a group with these instances as members InService. It desires at least as many as it is given and
// launches what is missing; Max grows with it.
func (a *AWS) AddGroup(g Group, members ...Instance) Group {
	a.mu.Lock()
	defer a.mu.Unlock()
	awsMust(g.Name != "" && a.groups[g.Name] == nil, "no name, or there is a group %q already", g.Name)
	awsMust(g.Members == nil, "group %s: members are given as instances", g.Name)
	for _, h := range g.Hooks {
		awsMust(h.Transition == HookLaunching || h.Transition == HookTerminating, "hook %s: AWS has no transition %q", h.Name, h.Transition)
	}
	g = g.clone()
	if g.Tags == nil {
		g.Tags = map[string]string{}
	}
	if len(g.Zones) == 0 {
		g.Zones = []string{a.region + "a"}
	}
	g.Desired = max(g.Desired, len(members))
	g.Max = max(g.Max, g.Desired)
	a.groups[g.Name] = &g
	for _, i := range members {
		a.join(&g, a.addInstance(i), "InService")
	}
	a.launchMissing(&g)
	return g.clone()
}

// join makes an instance a member. The group's tags overwrite the instance's (Auto Scaling user guide, tagging life
// cycle, on attaching).
func (a *AWS) join(g *Group, i *Instance, state string) {
	maps.Copy(i.Tags, g.Tags)
	i.Tags[groupTag] = g.Name
	g.Members = append(g.Members, Member{ID: i.ID, Group: g.Name, Zone: i.Zone, State: state})
}

// launchMissing starts what the group lacks. A launch that fails is tried again when its cause is taken away; AWS tries
// again by itself, ever more slowly.
func (a *AWS) launchMissing(g *Group) {
	if slices.Contains(g.Suspended, "Launch") || g.LaunchError != "" {
		return
	}
	for n := g.capacity(); n < g.Desired; n++ {
		i := a.addInstance(Instance{State: "pending", Zone: g.Zones[a.serial%len(g.Zones)], Spot: g.Spot})
		a.join(g, i, "Pending")
		id := i.ID
		time.AfterFunc(g.LaunchTime, func() { a.launchDone(id) })
	}
}

// capacity counts what is set against the desired capacity.
func (g *Group) capacity() int {
	n := 0
	for _, m := range g.Members {
		if m.State == "InService" || m.State == "Pending" {
			n++
		}
	}
	return n
}

func (a *AWS) launchDone(id string) {
	a.mu.Lock()
	m, i := a.member(id), a.instances[id]
	if m == nil || i == nil || i.State != "pending" {
		a.mu.Unlock()
		return
	}
	m.State, i.State = "InService", "running"
	f, c := a.launched, i.clone()
	a.mu.Unlock()
	if f != nil {
		f(c)
	}
}

// member is the instance's place in whichever group it is in, or nil.
func (a *AWS) member(id string) *Member {
	for _, g := range a.groups {
		for n := range g.Members {
			if g.Members[n].ID == id {
				return &g.Members[n]
			}
		}
	}
	return nil
}

// leave ends the instance's membership.
func (a *AWS) leave(id string) {
	for _, g := range a.groups {
		g.Members = slices.DeleteFunc(g.Members, func(m Member) bool { return m.ID == id })
	}
	if i := a.instances[id]; i != nil {
		delete(i.Tags, groupTag)
	}
}

// healthCheckLater has the instance's group replace it if it still does not run then, and if nobody suspended what that
// takes.
func (a *AWS) healthCheckLater(id string) {
	m := a.member(id)
	if m == nil {
		return
	}
	g := a.groups[m.Group]
	if g.HealthCheck == 0 {
		return
	}
	time.AfterFunc(g.HealthCheck, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		m, i := a.member(id), a.instances[id]
		if m == nil || m.State != "InService" || i != nil && i.State == "running" {
			return
		}
		for _, process := range []string{"HealthCheck", "ReplaceUnhealthy", "Terminate"} {
			if slices.Contains(g.Suspended, process) {
				return
			}
		}
		a.leave(id)
		if i != nil {
			i.State, i.PrivateDNSName, i.PrivateIP = "terminated", "", ""
		}
		a.launchMissing(g)
	})
}

// Group looks at a group, past faults and log.
func (a *AWS) Group(name string) Group {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mustGroup(name).clone()
}

// SetGroup changes a group: its sizes, suspended processes, launch error and so on, but not its members. What it lacks
// then, it launches.
func (a *AWS) SetGroup(name string, change func(*Group)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.mustGroup(name)
	c := g.clone()
	change(&c)
	c.Name, c.Members = g.Name, g.Members
	*g = c
	a.launchMissing(g)
}

// SetLifecycle sets a member's LifecycleState.
func (a *AWS) SetLifecycle(id, state string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.member(id)
	awsMust(m != nil, "instance %q is in no group", id)
	m.State = state
	a.launchMissing(a.groups[m.Group])
}

func (a *AWS) mustGroup(name string) *Group {
	g := a.groups[name]
	awsMust(g != nil, "there is no group %q", name)
	return g
}

// DescribeAutoScalingInstances answers the places of these instances, or of all; one that is in no group is left out.
func (a *AWS) DescribeAutoScalingInstances(ctx context.Context, ids []string) ([]Member, error) {
	var found []Member
	err := a.call(ctx, AWSCall{Operation: "DescribeAutoScalingInstances", IDs: ids}, func() *AWSError {
		for _, g := range awsSorted(a.groups) {
			for _, m := range g.Members {
				if len(ids) == 0 || slices.Contains(ids, m.ID) {
					found = append(found, m)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// DescribeAutoScalingGroups answers the groups of these names, or all; one that does not exist is left out.
func (a *AWS) DescribeAutoScalingGroups(ctx context.Context, names []string) ([]Group, error) {
	var found []Group
	c := AWSCall{Operation: "DescribeAutoScalingGroups"}
	if len(names) == 1 {
		c.Group = names[0]
	}
	err := a.call(ctx, c, func() *AWSError {
		for _, g := range awsSorted(a.groups) {
			if len(names) == 0 || slices.Contains(names, g.Name) {
				found = append(found, g.clone())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// DescribeLifecycleHooks answers the hooks of a group. What AWS says of a group it does not know is unverified for this
// call.
func (a *AWS) DescribeLifecycleHooks(ctx context.Context, group string) ([]Hook, error) {
	var found []Hook
	err := a.call(ctx, AWSCall{Operation: "DescribeLifecycleHooks", Group: group}, func() *AWSError {
		g := a.groups[group]
		if g == nil {
			return noGroup(group)
		}
		found = slices.Clone(g.Hooks)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// maxDetach is how many instances one call may detach. The documentation says 20 in one place and 19 in another.
const maxDetach = 20

// DetachInstances takes instances out of a group: all of them or, if one cannot be, none. Only a member that is
// InService or Standby can be. With decrement the group desires so many fewer, but never fewer than its minimum;
// without, it launches others for those that were InService (a Standby one did not count: that none is launched for it
// is unverified).
func (a *AWS) DetachInstances(ctx context.Context, group string, ids []string, decrement bool) error {
	return a.call(ctx, AWSCall{Operation: "DetachInstances", Group: group, IDs: ids}, func() *AWSError {
		g := a.groups[group]
		if g == nil {
			return noGroup(group)
		}
		if len(ids) > maxDetach {
			return invalid("List exceeds the maximum number of instances to detach. Please retry your request with fewer instances.")
		}
		for _, id := range ids {
			m := a.member(id)
			if m == nil || m.Group != group {
				return invalid("The instance %s is not part of Auto Scaling group %s.", id, group)
			}
			if m.State != "InService" && m.State != "Standby" {
				return invalid("The instance %s is not in InService or Standby.", id)
			}
		}
		if decrement {
			if g.Desired-len(ids) < g.Min {
				// AWS's words for EnterStandby; those for DetachInstances are unverified.
				return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To detach %d instance, please update the AutoScalingGroup sizes appropriately.",
					group, g.Min, g.Max, g.Desired, len(ids))
			}
			g.Desired -= len(ids)
		}
		for _, id := range ids {
			a.member(id).State = "Detaching"
			if g.DetachTime == 0 {
				a.leave(id)
				continue
			}
			time.AfterFunc(g.DetachTime, func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.leave(id)
			})
		}
		a.launchMissing(g)
		return nil
	})
}

func invalid(format string, args ...any) *AWSError {
	return &AWSError{Code: "ValidationError", Message: fmt.Sprintf(format, args...), HTTPStatus: 400, Means: spot.ErrFinal}
}

func noGroup(name string) *AWSError {
	return invalid("AutoScalingGroup name not found - AutoScalingGroup %s not found", name)
}
