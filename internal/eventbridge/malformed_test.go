package eventbridge_test

import "testing"

// ofOneInstance are samples of all types that speak of one instance, with the field that names it.
var ofOneInstance = map[string]string{
	"spot-interruption-terminate": "instance-id",
	"rebalance-recommendation":    "instance-id",
	"state-change-terminated":     "instance-id",
	"rehearsal-spot-terminate":    "instance-id",
	"asg-terminate-lifecycle":     "EC2InstanceId",
}

func TestWhatIsNoWholeEventIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ event, want string }{
		"no JSON":          {"{", "not a JSON object"},
		"a list":           {"[]", "not a JSON object"},
		"an SQS batch":     {`{"Records":[{}]}`, "without an input transformer"},
		"the detail alone": {`{"instance-id":"i-1234567890abcdef0"}`, "without an input transformer"},
		"no type":          {`{"source":"kops-spot.self-check"}`, "without an input transformer"},
		"no source":        {`{"detail-type":"Scheduled Event"}`, "without an input transformer"},
	} {
		t.Run(name, func(t *testing.T) { wrong(t, []byte(c.event), c.want) })
	}
}

func TestEveryTypeWantsItsInstance(t *testing.T) {
	t.Parallel()
	for name, field := range ofOneInstance {
		wrong(t, changed(t, name, func(_, d map[string]any) { delete(d, field) }), `"" is no EC2 instance id`)
		for _, id := range []string{"mi-12345678", "i-1234567890abcdef0/../x", "I-1234567890ABCDEF0", "i-1234567", "i-1234567890abcdef01",
			"i-1234567890abcdef0\n", "arn:aws:ec2:us-east-1:123456789012:instance/i-1234567890abcdef0"} {
			wrong(t, changed(t, name, func(_, d map[string]any) { d[field] = id }), "is no EC2 instance id")
		}
	}
}

func TestEveryTypeWantsTheEnvelope(t *testing.T) {
	t.Parallel()
	names := []string{"health-scheduled-change"}
	for name := range ofOneInstance {
		names = append(names, name)
	}
	for what, c := range map[string]struct {
		change func(event map[string]any)
		want   string
	}{
		"no id":                {func(e map[string]any) { delete(e, "id") }, `no "id"`},
		"no time":              {func(e map[string]any) { delete(e, "time") }, `"time"`},
		"another time":         {func(e map[string]any) { e["time"] = "Thu, 27 Aug 2026 13:19:03 GMT" }, `"time"`},
		"a time of no year":    {func(e map[string]any) { e["time"] = "0001-01-01T00:00:00Z" }, "the year 1 cannot be meant"},
		"a time past the last": {func(e map[string]any) { e["time"] = "9999-12-31T23:59:59-23:59" }, "the year 10000 cannot be meant"},
		"no region":            {func(e map[string]any) { delete(e, "region") }, `"region"`},
		"no detail":            {func(e map[string]any) { delete(e, "detail") }, "decoding the detail"},
		"a detail that is not": {func(e map[string]any) { e["detail"] = "x" }, "decoding the detail"},
	} {
		t.Run(what, func(t *testing.T) {
			for _, name := range names {
				wrong(t, changed(t, name, func(e, _ map[string]any) { c.change(e) }), c.want)
			}
		})
	}
}

func TestDetailsThatAWSDoesNotSendAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		of     string
		change func(detail map[string]any)
		want   string
	}{
		"an action that is none": {"spot-interruption-terminate", func(d map[string]any) { d["instance-action"] = "explode" },
			`"instance-action" is "explode", not terminate, stop or hibernate`},
		"no action": {"spot-interruption-terminate", func(d map[string]any) { delete(d, "instance-action") }, `"instance-action" is ""`},
		"a rehearsed action that is none": {"rehearsal-spot-terminate", func(d map[string]any) { d["instance-action"] = "explode" },
			`"explode", not terminate, stop or hibernate`},
		"no state": {"state-change-stopped", func(d map[string]any) { delete(d, "state") }, `"state" is "", not pending, running, `},
		"a state that is none": {"state-change-stopped", func(d map[string]any) { d["state"] = "asleep" },
			`"state" is "asleep", not pending, running, stopping, stopped, shutting-down or terminated`},
		"a transition that is another": {"asg-terminate-lifecycle", func(d map[string]any) { d["LifecycleTransition"] = "autoscaling:EC2_INSTANCE_LAUNCHING" },
			`"autoscaling:EC2_INSTANCE_LAUNCHING", not autoscaling:EC2_INSTANCE_TERMINATING`},
		"no transition": {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "LifecycleTransition") }, `"LifecycleTransition" is ""`},
		"no hook":       {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "LifecycleHookName") }, "LifecycleHookName"},
		"no group":      {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "AutoScalingGroupName") }, "AutoScalingGroupName"},
		"no start":      {"health-scheduled-change", func(d map[string]any) { delete(d, "startTime") }, `"startTime" is not as in`},
		"a start in another form": {"health-scheduled-change", func(d map[string]any) { d["startTime"] = "2026-01-15T07:00:00Z" },
			`as "Mon, 2 Jan 2006 15:04:05 GMT": cannot parse`},
		"a start in a zone nobody knows": {"health-scheduled-change", func(d map[string]any) { d["startTime"] = "Thu, 15 Jan 2026 07:00:00 PST" },
			`"startTime" is not as in`},
	} {
		t.Run(name, func(t *testing.T) {
			wrong(t, changed(t, c.of, func(_, d map[string]any) { c.change(d) }), c.want)
		})
	}
}

// TestTheFirstProblemIsNamed: of several, the one that stands first in the event's own order, the envelope before the
// detail.
func TestTheFirstProblemIsNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(event, detail map[string]any)
		want   string
	}{
		{func(e, d map[string]any) { e["time"], d["instance-action"], d["instance-id"] = "now", "explode", "x" }, `its "time" is not as in`},
		{func(_, d map[string]any) { d["instance-action"], d["instance-id"] = "explode", "x" }, `its "instance-action" is "explode"`},
	} {
		wrong(t, changed(t, "spot-interruption-terminate", c.change), "decoding the event 12345678-1234-1234-1234-123456789012: "+c.want)
	}
}
