package aws

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// recorder returns responses from a list in turn and keeps the requests.
type recorder struct {
	t       *testing.T
	answers []string
	asked   []url.Values
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if err := q.ParseForm(); err != nil {
		r.t.Error(err)
	}
	n := len(r.asked)
	r.asked = append(r.asked, q.Form)
	if n >= len(r.answers) {
		r.t.Errorf("call %d, for %v: unexpected", n+1, q.Form)
		http.Error(w, "", http.StatusTeapot)
		return
	}
	io.WriteString(w, r.answers[n])
}

func recorded(t *testing.T, answers ...string) (*Cloud, *recorder) {
	t.Helper()
	r := &recorder{t: t, answers: answers}
	return cloudAt(t, r.ServeHTTP), r
}

// activities returns a page of activities: description, status, start, status message.
func activities(next string, of ...[4]string) string {
	var b strings.Builder
	for _, a := range of {
		fmt.Fprintf(&b, "<member><Description>%s</Description><StatusCode>%s</StatusCode><StartTime>%s</StartTime><StatusMessage>%s</StatusMessage></member>",
			a[0], a[1], a[2], a[3])
	}
	if next != "" {
		next = "<NextToken>" + next + "</NextToken>"
	}
	return "<R><DescribeScalingActivitiesResult><Activities>" + b.String() + "</Activities>" + next + "</DescribeScalingActivitiesResult></R>"
}

// The descriptions come from Auto Scaling's user guide and users' reports.
func TestLaunchesFromDescriptions(t *testing.T) {
	const unhealthy = "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: Client.InternalError"
	const capacity = "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity available that matches your request. Launching EC2 instance failed."
	at := "2026-11-23T10:00:00.566Z"
	for name, tt := range map[string]struct {
		description, status, message string
		want                         *spot.Launch
	}{
		"in service": {"Launching a new EC2 instance: i-0123456789abcdef0", "Successful", "",
			&spot.Launch{Instance: "i-0123456789abcdef0"}},
		"an old ID": {"Launching a new EC2 instance: i-01234567", "PreInService", "",
			&spot.Launch{Instance: "i-01234567"}},
		"held by a hook": {"Launching a new EC2 instance: i-0123456789abcdef0", "MidLifecycleAction", "",
			&spot.Launch{Instance: "i-0123456789abcdef0"}},
		"no instance yet":  {"Launching a new EC2 instance", "InProgress", "", &spot.Launch{}},
		"waiting for Spot": {"Launching a new EC2 instance.  Status Reason: Placed Spot instance request: sir-0abcdef0. Waiting for instance(s)", "WaitingForSpotInstanceId", "Placed Spot instance request", &spot.Launch{}},
		"an unknown status": {"Launching a new EC2 instance: i-0123456789abcdef0", "Newfangled", "x",
			&spot.Launch{Instance: "i-0123456789abcdef0"}},
		"from a warm pool": {"Launching a new EC2 instance from warm pool: i-0123456789abcdef0", "Successful", "",
			&spot.Launch{Instance: "i-0123456789abcdef0"}},
		"no capacity": {"Launching a new EC2 instance.  Status Reason: " + capacity, "Failed", capacity,
			&spot.Launch{Failed: true, Reason: capacity}},
		"cancelled": {"Launching a new EC2 instance: i-0123456789abcdef0.  Status Reason: " + unhealthy,
			"Cancelled", unhealthy, &spot.Launch{Instance: "i-0123456789abcdef0", Failed: true, Reason: unhealthy}},
		"a reason that names another": {"Launching a new EC2 instance.  Status Reason: i-0fedcba9876543210 is in the way", "Failed", "i-0fedcba9876543210 is in the way",
			&spot.Launch{Failed: true, Reason: "i-0fedcba9876543210 is in the way"}},
		"no message": {"Launching a new EC2 instance.  Status Reason: no money", "Failed", "",
			&spot.Launch{Failed: true, Reason: "no money"}},
		"no reason at all": {"Launching a new EC2 instance", "Cancelled", "",
			&spot.Launch{Failed: true, Reason: "Cancelled"}},
		"into a warm pool": {"Launching a new EC2 instance into warm pool: i-0123456789abcdef0", "Successful",
			"", nil},
		"a termination":            {"Terminating EC2 instance: i-0123456789abcdef0", "Successful", "", nil},
		"a detach":                 {"Detaching EC2 instance: i-0123456789abcdef0", "InProgress", "", nil},
		"a launch within the text": {"Terminating EC2 instance: i-0123456789abcdef0. Launching a new EC2 instance: i-0fedcba9876543210", "Successful", "", nil},
		"no description":           {"", "Successful", "", nil},
	} {
		c, _ := recorded(t, activities("", [4]string{tt.description, tt.status, at, tt.message}))
		found, err := c.Launches(t.Context(), "g", time.Time{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var want []spot.Launch
		if tt.want != nil {
			tt.want.At = time.Date(2026, 11, 23, 10, 0, 0, 566_000_000, time.UTC)
			want = []spot.Launch{*tt.want}
		}
		if !reflect.DeepEqual(found, want) {
			t.Errorf("%s: got %+v, want %+v", name, found, want)
		}
	}
}

// Pages are read until the finished activities are older than the given time. Activities in progress come first and can
// be older.
func TestLaunchesPagination(t *testing.T) {
	launch := func(id, status, at string) [4]string {
		return [4]string{"Launching a new EC2 instance: i-" + id, status, "2026-11-23T" + at + "Z", ""}
	}
	first := activities("two",
		[4]string{"Terminating EC2 instance: i-00000000", "MidLifecycleAction", "2026-11-21T10:00:00Z",
			""}, // in progress for two days
		launch("00000004", "PreInService", "10:03:00"),
		launch("00000003", "Successful", "10:02:00"))
	second := activities("three", launch("00000002", "Failed", "10:01:00"),
		launch("00000001", "Successful", "09:00:00"))
	third := activities("", launch("00000000", "Successful", "08:00:00"))

	for name, tt := range map[string]struct {
		since string
		calls int
		want  []string
	}{
		"the last":           {"10:02:30", 1, []string{"i-00000004"}},
		"a second too early": {"10:02:01", 2, []string{"i-00000003", "i-00000004"}},
		"three seconds too":  {"10:02:03", 1, []string{"i-00000004"}},
		"to the second page": {"10:00:00", 2, []string{"i-00000002", "i-00000003", "i-00000004"}},
		"to the end": {"07:00:00", 3,
			[]string{"i-00000000", "i-00000001", "i-00000002", "i-00000003", "i-00000004"}},
		"none": {"10:04:00", 1, nil},
	} {
		c, r := recorded(t, first, second, third)
		since, err := time.Parse(time.RFC3339, "2026-11-23T"+tt.since+"Z")
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.Launches(t.Context(), "nodes", since)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var ids []string
		for _, l := range found {
			ids = append(ids, l.Instance)
		}
		if !slices.Equal(ids, tt.want) || len(r.asked) != tt.calls {
			t.Errorf("%s: %v after %d calls, want %v after %d", name, ids, len(r.asked), tt.want, tt.calls)
		}
		for n, q := range r.asked {
			if token := []string{"", "two", "three"}[n]; q.Get("NextToken") != token ||
				q.Get("AutoScalingGroupName") != "nodes" || q.Has("IncludeDeletedGroups") {
				t.Errorf("%s: call %d requests %v", name, n+1, q)
			}
		}
	}
}

// An unreadable page is an error, not the end of the list.
func TestLaunchesUnreadablePage(t *testing.T) {
	c, _ := recorded(t, activities("two",
		[4]string{"Launching a new EC2 instance: i-00000004", "Successful", "2026-11-23T10:00:00Z", ""}),
		"<broken")
	if found, err := c.Launches(t.Context(), "g", time.Time{}); err == nil || found != nil {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestHook(t *testing.T) {
	c, r := recorded(t, `<R><DescribeLifecycleHooksResult><LifecycleHooks>
		<member><LifecycleHookName>other</LifecycleHookName><HeartbeatTimeout>1</HeartbeatTimeout></member>
		<member><LifecycleHookName>drain</LifecycleHookName><HeartbeatTimeout>300</HeartbeatTimeout><GlobalTimeout>30000</GlobalTimeout></member>
		</LifecycleHooks></DescribeLifecycleHooksResult></R>`)
	h, err := c.Hook(t.Context(), "nodes", "drain")
	if want := (spot.Hook{Heartbeat: 5 * time.Minute, Global: 500 * time.Minute}); err != nil || h != want {
		t.Errorf("got %+v, %v", h, err)
	}
	if q := r.asked[0]; q.Get("AutoScalingGroupName") != "nodes" || q.Get("LifecycleHookNames.member.1") != "drain" ||
		q.Has("LifecycleHookNames.member.2") {
		t.Errorf("the request is %v", q)
	}
}

// The request identifies the action and has no empty parameters: AWS rejects an empty token.
func TestLifecycleActionParameters(t *testing.T) {
	for _, tt := range []struct {
		action spot.Action
		want   url.Values
	}{
		{spot.Action{Group: "nodes", Hook: "drain", Token: "t-1", Instance: id},
			url.Values{"LifecycleActionToken": {"t-1"}, "InstanceId": {id}}},
		{spot.Action{Group: "nodes", Hook: "drain", Instance: id}, url.Values{"InstanceId": {id}}},
		{spot.Action{Group: "nodes", Hook: "drain", Token: "t-1"}, url.Values{"LifecycleActionToken": {"t-1"}}},
	} {
		tt.want.Set("AutoScalingGroupName", "nodes")
		tt.want.Set("LifecycleHookName", "drain")
		c, r := recorded(t, `<R><RecordLifecycleActionHeartbeatResult/></R>`, `<R><CompleteLifecycleActionResult/></R>`)
		if err := errors.Join(c.Heartbeat(t.Context(), tt.action), c.Complete(t.Context(), tt.action)); err != nil {
			t.Fatal(err)
		}
		for n, action := range []string{"RecordLifecycleActionHeartbeat", "CompleteLifecycleAction"} {
			tt.want["Action"], tt.want["Version"] = []string{action}, []string{"2011-01-01"}
			if n == 1 {
				tt.want.Set("LifecycleActionResult", "CONTINUE")
			}
			if !reflect.DeepEqual(r.asked[n], tt.want) {
				t.Errorf("the request is %v, want %v", r.asked[n], tt.want)
			}
		}
	}
}
