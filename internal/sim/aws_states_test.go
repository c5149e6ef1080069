package sim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func wantState(t *testing.T, a *AWS, id, want string) {
	t.Helper()
	synctest.Wait()
	if i, ok := a.Instance(id); !ok || i.State != want {
		t.Errorf("the instance is %q, want %s", i.State, want)
	}
}

func TestStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, loner := account()
		a.SetInstanceTimes(InstanceTimes{Start: 30 * time.Second, Stop: time.Minute})
		before, _ := a.Instance(loner)
		time.Sleep(time.Hour)
		a.StopInstance(loner)
		wantState(t, a, loner, "stopping")
		time.Sleep(59 * time.Second)
		wantState(t, a, loner, "stopping")
		time.Sleep(time.Second)
		wantState(t, a, loner, "stopped")
		if i, _ := a.Instance(loner); i.PrivateDNSName != before.PrivateDNSName || i.PrivateIP != before.PrivateIP {
			t.Errorf("stopped: %+v, before %+v", i, before)
		}

		a.StartInstance(loner)
		wantState(t, a, loner, "pending")
		time.Sleep(30 * time.Second)
		wantState(t, a, loner, "running")
		if i, _ := a.Instance(loner); i.PrivateIP != before.PrivateIP {
			t.Errorf("started again: %+v", i)
		}
	})
}

func TestReclaim(t *testing.T) {
	for action, want := range map[string][2]string{
		"terminate": {"shutting-down", "terminated"},
		"stop":      {"stopping", "stopped"},
		"hibernate": {"stopping", "stopped"},
	} {
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, ids, _ := account(func(g *Group) { g.HealthCheck = 3 * time.Minute })
				a.Reclaim(ids[0], action, 2*time.Minute)
				a.Reclaim(ids[1], action, 2*time.Minute)
				time.Sleep(time.Minute)
				a.SetState(ids[1], "terminated") // somebody else was quicker
				time.Sleep(59 * time.Second)
				wantState(t, a, ids[0], "running")
				wantState(t, a, ids[1], "terminated")
				time.Sleep(time.Second)
				wantState(t, a, ids[0], want[0])
				wantState(t, a, ids[1], "terminated")
				time.Sleep(20 * time.Second)
				wantState(t, a, ids[0], want[1])
				wantStates(t, a, "[3 InService]") // the group has not looked yet
				time.Sleep(time.Hour)
				wantStates(t, a, "[3 InService]")
				wantState(t, a, ids[0], "terminated") // the group terminates what does not run
			})
		})
	}
}

func TestDescribeInstancesByFilter(t *testing.T) {
	a, ids, loner := account()
	ours := Filter{"tag:" + spot.TagCluster, []string{"other", "example.com"}}
	for name, tt := range map[string]struct {
		ids     []string
		filters []Filter
		want    int
	}{
		"a cluster's":              {nil, []Filter{ours}, 3},
		"nobody's tag":             {nil, []Filter{{"tag:x", []string{""}}}, 0},
		"some ids":                 {nil, []Filter{{"instance-id", []string{ids[0], loner, "i-00000000", "nonsense"}}}, 2},
		"some ids and a cluster's": {nil, []Filter{{"instance-id", []string{ids[0], loner}}, ours}, 1},
		"ids, of them a cluster's": {[]string{loner, ids[1]}, []Filter{ours}, 1},
		"no value":                 {nil, []Filter{{"instance-id", nil}}, 0},
	} {
		found, err := a.DescribeInstances(t.Context(), tt.ids, tt.filters...)
		if err != nil || len(found) != tt.want {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	_, err := a.DescribeInstances(t.Context(), []string{"i-00000000"}, ours)
	wantCode(t, err, "InvalidInstanceID.NotFound")
}

func TestMistakesWithStatesPanic(t *testing.T) {
	a, ids, loner := account()
	wantPanics(t, map[string]func(){
		"stopping what is stopped":   func() { a.SetState(loner, "stopped"); a.StopInstance(loner) },
		"starting what runs":         func() { a.StartInstance(ids[0]) },
		"stopping what is not there": func() { a.StopInstance("i-1") },
		"reclaiming what is no Spot": func() { a.Reclaim(loner, "terminate", 0) },
		"no such behavior":           func() { a.Reclaim(ids[0], "Terminate", 0) },
		"no such filter":             func() { a.DescribeInstances(t.Context(), nil, Filter{Name: "vpc-id"}) },
	})
}

func wantPanics(t *testing.T, mistakes map[string]func()) {
	t.Helper()
	for name, mistake := range mistakes {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			mistake()
		}()
	}
}
