package spottest

import (
	"maps"
	"slices"
	"time"
)

// Group is an Auto Scaling group.
//
// It keeps as many members as it desires: those Pending and InService count. Whenever there are fewer it launches, at
// once, unless the process Launch is suspended or LaunchError is set. It never removes a member that is too many, and never
// looks whether its instances run.
type Group struct {
	Name              string
	Min, Max, Desired int
	Tags              map[string]string // all are put on its instances
	Suspended         []string          // processes, by a user or by AWS itself: Launch, Terminate, HealthCheck, …
	Hooks             []Hook            // those for an instance's end run after EndMember; a detached instance skips them

	Zones []string // it launches in turn in these; the region's a if empty
	Spot  bool     // what it launches is Spot

	LaunchTime  time.Duration // from pending to running and InService
	LaunchError string        // not empty: launches fail with this code, e.g. "InsufficientInstanceCapacity - There is no Spot capacity available"
	DetachTime  time.Duration // how long a member is Detaching; AWS: the load balancers' deregistration delay

	Members []Member // what it is described with; not for AddGroup
}

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
		h.mustBe()
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

// join makes an instance a member. The group's tags overwrite the instance's (Auto Scaling user guide, tagging life
// cycle, on attaching).
func (a *AWS) join(g *Group, i *Instance, state string) {
	maps.Copy(i.Tags, g.Tags)
	i.Tags[groupTag] = g.Name
	g.Members = append(g.Members, Member{ID: i.ID, Group: g.Name, Zone: i.Zone, State: state})
}

// launchMissing starts what the group lacks. A launch that fails is tried again after a while, and when SetGroup takes its
// cause away.
func (a *AWS) launchMissing(g *Group) {
	switch {
	case slices.Contains(g.Suspended, "Launch") || g.capacity() >= g.Desired:
		a.noRetry(g)
		return
	case g.LaunchError != "":
		a.launchFailed(g)
		return
	}
	a.noRetry(g)
	for g.capacity() < g.Desired {
		i := a.addInstance(Instance{State: "pending", Zone: g.Zones[a.serial%len(g.Zones)], Spot: g.Spot})
		a.join(g, i, "Pending")
		act := a.begin(g.Name, activityLaunch, i.ID, "PreInService")
		time.AfterFunc(g.LaunchTime, func() { a.launchDone(i, act) })
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

// launchDone puts an instance into service.
func (a *AWS) launchDone(i *Instance, act *Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.member(i.ID).State, i.State = "InService", "running"
	act.Status = "Successful"
	if a.launched != nil {
		go a.launched(i.clone())
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
