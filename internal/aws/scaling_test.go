package aws

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
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

// TestLifecycleActionParameters: the request identifies the action and has no empty parameters: AWS rejects an empty
// token.
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
