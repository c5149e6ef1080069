package spottest

import (
	"maps"
	"slices"
	"time"
)

// Group is an Auto Scaling group.
//
// It keeps Desired members Pending or InService and launches missing ones at once, unless the process Launch is
// suspended or LaunchError is set. It never removes surplus members and does no health checks.
type Group struct {
	Name              string
	Min, Max, Desired int
	Tags              map[string]string // copied to its instances
	Suspended         []string          // processes: Launch, Terminate, HealthCheck, …
	Hooks             []Hook            // termination hooks run after TerminateMember, not after a detach

	Zones []string // used in turn; the region's zone a if empty
	Spot  bool     // launches Spot Instances

	LaunchTime  time.Duration // from pending to running and InService
	LaunchError string        // launches fail with it: "InsufficientInstanceCapacity - There is no Spot capacity available"
	DetachTime  time.Duration // in Detaching; on AWS, the load balancers' deregistration delay

	Members []Member // set by the account; must be empty in AddGroup
}

// Member is an instance in a group.
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

// AddGroup adds a group with these instances InService. Desired and Max grow to fit them; missing members are launched.
func (a *AWS) AddGroup(g Group, members ...Instance) Group {
	a.mu.Lock()
	defer a.mu.Unlock()
	awsRequire(g.Name != "" && a.groups[g.Name] == nil, "no name, or there is a group %q already", g.Name)
	awsRequire(g.Members == nil, "group %s: members are given as instances", g.Name)
	for _, h := range g.Hooks {
		h.check()
	}
	g = g.clone()
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

// join adds an instance to the group. The tags of the group overwrite those of the instance (Auto Scaling user guide,
// tagging lifecycle, attaching).
func (a *AWS) join(g *Group, i *Instance, state string) {
	maps.Copy(i.Tags, g.Tags)
	i.Tags[groupTag] = g.Name
	g.Members = append(g.Members, Member{ID: i.ID, Group: g.Name, Zone: i.Zone, State: state})
}

// launchMissing launches missing members. A failed launch is retried later, and when SetGroup removes the cause.
func (a *AWS) launchMissing(g *Group) {
	switch {
	case slices.Contains(g.Suspended, "Launch") || g.capacity() >= g.Desired:
		a.cancelRetry(g)
		return
	case g.LaunchError != "":
		a.launchFailed(g)
		return
	}
	a.cancelRetry(g)
	for g.capacity() < g.Desired {
		i := a.addInstance(Instance{State: "pending", Zone: g.Zones[a.serial%len(g.Zones)], Spot: g.Spot})
		a.join(g, i, "Pending")
		time.AfterFunc(g.LaunchTime, func() { a.launchDone(i) })
	}
}

// capacity counts the members that count toward the desired capacity.
func (g *Group) capacity() int {
	n := 0
	for _, m := range g.Members {
		if m.State == "InService" || m.State == "Pending" {
			n++
		}
	}
	return n
}

func (a *AWS) launchDone(i *Instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.member(i.ID).State, i.State = "InService", "running"
	if a.launched != nil {
		go a.launched(i.clone())
	}
}

// member returns the instance's group member, or nil.
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

// leave removes the instance from its group.
func (a *AWS) leave(id string) {
	for _, g := range a.groups {
		g.Members = slices.DeleteFunc(g.Members, func(m Member) bool { return m.ID == id })
	}
	if i := a.instances[id]; i != nil {
		delete(i.Tags, groupTag)
	}
}

// Group returns a group. It is not a call: no faults apply, and it is not logged.
func (a *AWS) Group(name string) Group {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mustGroup(name).clone()
}

// SetGroup changes a group, except its members, and launches missing members.
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
	awsRequire(m != nil, "instance %q is in no group", id)
	m.State = state
	a.launchMissing(a.groups[m.Group])
}

func (a *AWS) mustGroup(name string) *Group {
	g := a.groups[name]
	awsRequire(g != nil, "there is no group %q", name)
	return g
}
