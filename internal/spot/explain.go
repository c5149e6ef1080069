package spot

import (
	"maps"
	"slices"
	"time"
)

// noticeOfChange is how long before a scheduled change an imagined announcement of it comes. AWS gives days or weeks.
const noticeOfChange = 7 * 24 * time.Hour

// Warnings are the kinds of events that say what is going to happen to an instance.
func WarningKinds() []Kind {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(eventRules)), func(k Kind) bool { return eventRules[k].after })
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
