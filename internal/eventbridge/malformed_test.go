package eventbridge_test

import "testing"

// singleInstanceSamples are samples of all events about one instance, with the field that holds its ID.
var singleInstanceSamples = map[string]string{
	"spot-interruption-terminate": "instance-id",
	"rebalance-recommendation":    "instance-id",
	"state-change-terminated":     "instance-id",
	"rehearsal-spot-terminate":    "instance-id",
	"asg-terminate-lifecycle":     "EC2InstanceId",
}

func TestDecodeRejectsIncompleteEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ event, want string }{
		"no JSON":          {"{", "not an EventBridge event"},
		"a list":           {"[]", "not an EventBridge event"},
		"an SQS batch":     {`{"Records":[{}]}`, "do not use an input transformer"},
		"the detail alone": {`{"instance-id":"i-1234567890abcdef0"}`, "do not use an input transformer"},
		"no type":          {`{"source":"kops-spot.self-check"}`, "do not use an input transformer"},
		"no source":        {`{"detail-type":"Scheduled Event"}`, "do not use an input transformer"},
	} {
		t.Run(name, func(t *testing.T) { requireInvalid(t, []byte(c.event), c.want) })
	}
}

func TestDecodeRequiresInstanceID(t *testing.T) {
	t.Parallel()
	for name, field := range singleInstanceSamples {
		requireInvalid(t, changed(t, name, func(_, d map[string]any) { delete(d, field) }),
			`"" is not an EC2 instance ID`)
		for _, id := range []string{"mi-12345678", "i-1234567890abcdef0/../x", "I-1234567890ABCDEF0", "i-1234567",
			"i-1234567890abcdef01",
			"i-1234567890abcdef0\n", "arn:aws:ec2:us-east-1:123456789012:instance/i-1234567890abcdef0"} {
			requireInvalid(t, changed(t, name, func(_, d map[string]any) { d[field] = id }),
				"is not an EC2 instance ID")
		}
	}
}

func TestDecodeRequiresEnvelope(t *testing.T) {
	t.Parallel()
	names := []string{"health-scheduled-change", "launch-unsuccessful"}
	for name := range singleInstanceSamples {
		names = append(names, name)
	}
	for what, c := range map[string]struct {
		change func(event map[string]any)
		want   string
	}{
		"no id":             {func(e map[string]any) { delete(e, "id") }, `"id" is missing`},
		"no time":           {func(e map[string]any) { delete(e, "time") }, `"time"`},
		"another time":      {func(e map[string]any) { e["time"] = "Thu, 27 Aug 2026 13:19:03 GMT" }, `"time"`},
		"a time of no year": {func(e map[string]any) { e["time"] = "0001-01-01T00:00:00Z" }, "year 1 is out of range"},
		"a time past the last": {func(e map[string]any) { e["time"] = "9999-12-31T23:59:59-23:59" },
			"year 10000 is out of range"},
		"no region":            {func(e map[string]any) { delete(e, "region") }, `"region"`},
		"no detail":            {func(e map[string]any) { delete(e, "detail") }, "decoding the detail"},
		"a detail that is not": {func(e map[string]any) { e["detail"] = "x" }, "decoding the detail"},
	} {
		t.Run(what, func(t *testing.T) {
			for _, name := range names {
				requireInvalid(t, changed(t, name, func(e, _ map[string]any) { c.change(e) }), c.want)
			}
		})
	}
}

func TestDecodeRejectsInvalidDetails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		of     string
		change func(detail map[string]any)
		want   string
	}{
		"unknown action": {"spot-interruption-terminate", func(d map[string]any) { d["instance-action"] = "explode" },
			`"instance-action" is "explode", not terminate, stop or hibernate`},
		"no action": {"spot-interruption-terminate", func(d map[string]any) { delete(d, "instance-action") },
			`"instance-action" is ""`},
		"unknown rehearsed action": {"rehearsal-spot-terminate",
			func(d map[string]any) { d["instance-action"] = "explode" },
			`"explode", not terminate, stop or hibernate`},
		"no state": {"state-change-stopped", func(d map[string]any) { delete(d, "state") },
			`"state" is "", not pending, running, `},
		"unknown state": {"state-change-stopped", func(d map[string]any) { d["state"] = "asleep" },
			`"state" is "asleep", not pending, running, stopping, stopped, shutting-down or terminated`},
		"another transition": {"asg-terminate-lifecycle",
			func(d map[string]any) { d["LifecycleTransition"] = "autoscaling:EC2_INSTANCE_LAUNCHING" },
			`"autoscaling:EC2_INSTANCE_LAUNCHING", not autoscaling:EC2_INSTANCE_TERMINATING`},
		"no transition": {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "LifecycleTransition") },
			`"LifecycleTransition" is ""`},
		"no hook": {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "LifecycleHookName") },
			"LifecycleHookName"},
		"no group": {"asg-terminate-lifecycle", func(d map[string]any) { delete(d, "AutoScalingGroupName") },
			"AutoScalingGroupName"},
		"no group that launches": {"launch-unsuccessful", func(d map[string]any) { delete(d, "AutoScalingGroupName") },
			`"AutoScalingGroupName" is missing`},
		"no reason of the failed launch": {"launch-unsuccessful", func(d map[string]any) { d["StatusMessage"] = "" },
			`"StatusMessage" is missing`},
		"a group that is a number": {"launch-unsuccessful", func(d map[string]any) { d["AutoScalingGroupName"] = 1 },
			"decoding the detail"},
		"no start": {"health-scheduled-change", func(d map[string]any) { delete(d, "startTime") },
			`"startTime" must look like`},
		"start in another format": {"health-scheduled-change",
			func(d map[string]any) { d["startTime"] = "2026-01-15T07:00:00Z" },
			`as "Mon, 2 Jan 2006 15:04:05 GMT": cannot parse`},
		"start in an unknown time zone": {"health-scheduled-change",
			func(d map[string]any) { d["startTime"] = "Thu, 15 Jan 2026 07:00:00 PST" },
			`"startTime" must look like`},
	} {
		t.Run(name, func(t *testing.T) {
			requireInvalid(t, changed(t, c.of, func(_, d map[string]any) { c.change(d) }), c.want)
		})
	}
}

// TestFirstErrorIsReported: errors in the envelope come before errors in the detail.
func TestFirstErrorIsReported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(event, detail map[string]any)
		want   string
	}{
		{func(e, d map[string]any) { e["time"], d["instance-action"], d["instance-id"] = "now", "explode", "x" },
			`"time" must look like`},
		{func(_, d map[string]any) { d["instance-action"], d["instance-id"] = "explode", "x" },
			`"instance-action" is "explode"`},
	} {
		requireInvalid(t, changed(t, "spot-interruption-terminate", c.change),
			"decoding the event 12345678-1234-1234-1234-123456789012: "+c.want)
	}
}
