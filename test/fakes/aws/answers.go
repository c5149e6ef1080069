package aws

import (
	"encoding/xml"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/castai/kops-spot/internal/spottest"
)

// done is EC2's response to a change.
func done() []element { return []element{text("return", "true")} }

// states maps an instance state to EC2's code (API reference, InstanceState).
func states() map[string]int {
	return map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64,
		"stopped": 80}
}

func describedInstances(found []spottest.Instance) []element {
	return []element{list("reservationSet", "item", found, func(i spottest.Instance) []element {
		return []element{group("instancesSet", group("item", instance(i)...))}
	})}
}

func state(name, of string) element {
	return group(name, text("code", strconv.Itoa(states()[of])), text("name", of))
}

func instance(i spottest.Instance) []element {
	es := []element{
		text("instanceId", i.ID),
		state("instanceState", i.State),
		text("privateDnsName", i.PrivateDNSName),
		group("hibernationOptions", text("configured", strconv.FormatBool(i.Hibernates))),
		text("instanceType", i.Type),
		group("placement", text("availabilityZone", i.Zone)),
		list("tagSet", "item", slices.Sorted(maps.Keys(i.Tags)), func(k string) []element {
			return []element{text("key", k), text("value", i.Tags[k])}
		}),
	}
	if i.PrivateIP != "" {
		es = append(es, text("privateIpAddress", i.PrivateIP))
	}
	if i.Spot { // only Spot instances have a lifecycle
		es = append(es, text("instanceLifecycle", "spot"))
	}
	return es
}

func describedMembers(found []spottest.Member) []element {
	return []element{list("AutoScalingInstances", "member", found, func(m spottest.Member) []element {
		return append(member(m), text("AutoScalingGroupName", m.Group))
	})}
}

func member(m spottest.Member) []element {
	return []element{text("InstanceId", m.ID), text("LifecycleState", m.State)}
}

func describedGroups(found []spottest.Group) []element {
	return []element{list("AutoScalingGroups", "member", found, func(g spottest.Group) []element {
		return []element{
			text("AutoScalingGroupName", g.Name),
			text("DesiredCapacity", strconv.Itoa(g.Desired)),
			list("Instances", "member", g.Members, member),
			list("SuspendedProcesses", "member", g.Suspended, func(p string) []element {
				return []element{text("ProcessName", p)}
			}),
			list("Tags", "member", slices.Sorted(maps.Keys(g.Tags)), func(k string) []element {
				return []element{text("Key", k), text("Value", g.Tags[k])}
			}),
		}
	})}
}

func describedHooks(found []spottest.Hook) []element {
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
	return []element{list("LifecycleHooks", "member", found, func(h spottest.Hook) []element {
		return []element{
			text("LifecycleHookName", h.Name),
			text("LifecycleTransition", h.Transition),
			text("HeartbeatTimeout", seconds(h.Heartbeat)),
			text("GlobalTimeout", seconds(h.Global())),
		}
	})}
}

// element is an XML element with a text or more elements.
type element struct {
	XMLName xml.Name
	Space   string    `xml:"xmlns,attr,omitempty"`
	Text    string    `xml:",chardata"`
	Inside  []element `xml:",any"`
}

func text(name, value string) element {
	return element{XMLName: xml.Name{Local: name}, Text: value}
}

func group(name string, inside ...element) element {
	return element{XMLName: xml.Name{Local: name}, Inside: inside}
}

// list is a list in the format of the services: each element in <item> in EC2, in <member> in Auto Scaling.
func list[T any](name, part string, of []T, inside func(T) []element) element {
	e := group(name)
	for _, v := range of {
		e.Inside = append(e.Inside, group(part, inside(v)...))
	}
	return e
}

// requestID is in every response.
const requestID = "00000000-0000-0000-0000-000000000001"

// envelope is the response of an operation. Auto Scaling wraps its content in <…Result>, EC2 does not.
func envelope(op string, inside []element) element {
	e := group(op + "Response")
	if spottest.IsEC2(op) {
		e.Space = "http://ec2.amazonaws.com/doc/2016-11-15/"
		e.Inside = append([]element{text("requestId", requestID)}, inside...)
		return e
	}
	e.Space = "http://autoscaling.amazonaws.com/doc/2011-01-01/"
	e.Inside = []element{group(op+"Result", inside...), group("ResponseMetadata", text("RequestId", requestID))}
	return e
}

// failure is an error in the format of the service.
func failure(to string, e *spottest.AWSError) element {
	if to == "ec2" {
		return group("Response",
			group("Errors", group("Error", text("Code", e.Code), text("Message", e.Message))),
			text("RequestID", requestID))
	}
	whose := "Sender"
	if e.HTTPStatus >= 500 {
		whose = "Receiver"
	}
	return group("ErrorResponse",
		group("Error", text("Type", whose), text("Code", e.Code), text("Message", e.Message)),
		text("RequestId", requestID))
}
