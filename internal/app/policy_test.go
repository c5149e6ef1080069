package app

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const castaiCluster = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

// complete returns a valid environment with more variables.
func complete(more ...string) []string {
	return append([]string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=file:/t", "KOPS_SPOT_SERVER=https://api"}, more...)
}

// TestPolicySettings: each setting changes exactly its field.
func TestPolicySettings(t *testing.T) {
	castai := []string{"KOPS_SPOT_CASTAI_CLUSTER=" + castaiCluster, "KOPS_SPOT_CASTAI_KEY=ssm:/cast/key"}
	for _, c := range []struct {
		env    []string
		change func(*spot.Policy)
	}{
		{[]string{"KOPS_SPOT_FORCE=never"}, func(p *spot.Policy) { p.Force = spot.ForceNever }},
		{[]string{"KOPS_SPOT_FORCE=allow"}, func(*spot.Policy) {}},
		{[]string{"KOPS_SPOT_FORCE_GRACE=1s"}, func(p *spot.Policy) { p.ForceGrace = time.Second }},
		{[]string{"KOPS_SPOT_FORCE_GRACE=1m50s"}, func(p *spot.Policy) { p.ForceGrace = 110 * time.Second }},
		{[]string{"KOPS_SPOT_SHUTDOWN_GRACE=0s"}, func(*spot.Policy) {}},
		{[]string{"KOPS_SPOT_SHUTDOWN_GRACE=20s"}, func(p *spot.Policy) { p.ShutdownGrace = 20 * time.Second }},
		{[]string{"KOPS_SPOT_SHUTDOWN_GRACE=3m"}, func(p *spot.Policy) { p.ShutdownGrace = 3 * time.Minute }},
		{[]string{"KOPS_SPOT_DAEMONSETS=last"}, func(p *spot.Policy) { p.DaemonSets = spot.DrainLast }},
		{[]string{"KOPS_SPOT_REBALANCE=cordon"}, func(p *spot.Policy) { p.Rebalance = spot.RespondCordon }},
		{[]string{"KOPS_SPOT_REBALANCE=drain"}, func(p *spot.Policy) { p.Rebalance = spot.RespondDrain }},
		{[]string{"KOPS_SPOT_SCHEDULED_CHANGE=drain"}, func(p *spot.Policy) { p.ScheduledChange = spot.RespondDrain }},
		{[]string{"KOPS_SPOT_HOOKS= spot-drain ,, b/2,"}, func(p *spot.Policy) { p.Hooks = []string{"spot-drain", "b/2"} }},
		{[]string{"KOPS_SPOT_REPLACE=auto"}, func(*spot.Policy) {}},
		{[]string{"KOPS_SPOT_REPLACE=none"}, func(p *spot.Policy) { p.Replace = spot.ReplacerNone }},
		{[]string{"KOPS_SPOT_REPLACE=karpenter"}, func(p *spot.Policy) { p.Replace = spot.ReplacerKarpenter }},
		{append([]string{"KOPS_SPOT_REPLACE=castai"}, castai...), func(p *spot.Policy) { p.Replace, p.HasAutoscaler = spot.ReplacerAutoscaler, true }},
		{castai, func(p *spot.Policy) { p.HasAutoscaler = true }},
		{[]string{"KOPS_SPOT_REHEARSALS=act"}, func(p *spot.Policy) { p.DrainRehearsals = true }},
		{[]string{"KOPS_SPOT_REHEARSALS=preview"}, func(*spot.Policy) {}},
		{[]string{"KOPS_SPOT_FORCE_GRACE=", "KOPS_SPOT_HOOKS= ", "KOPS_SPOT_CASTAI_KEY="}, func(*spot.Policy) {}},
	} {
		t.Run(strings.Join(c.env, " "), func(t *testing.T) {
			want := spot.DefaultPolicy("prod.example.com")
			c.change(&want)
			cfg, err := ParseConfig(complete(c.env...))
			if err != nil || !reflect.DeepEqual(cfg.Policy, want) {
				t.Errorf("got %+v, %v\nwant %+v", cfg.Policy, err, want)
			}
			// The policy alone requires no authentication settings.
			alone, err := PolicyOf(append(c.env, "KOPS_SPOT_CLUSTER=prod.example.com"))
			if err != nil || !reflect.DeepEqual(alone, want) {
				t.Errorf("the policy alone: %+v, %v\nwant %+v", alone, err, want)
			}
		})
	}
}

// TestPolicyMistakes: the error lists all mistakes with the valid values, including authentication settings.
func TestPolicyMistakes(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"KOPS_SPOT_FORCE=maybe"}, `KOPS_SPOT_FORCE: set it to allow or never, not "maybe"`},
		{[]string{"KOPS_SPOT_FORCE_GRACE=0s"}, "KOPS_SPOT_FORCE_GRACE: set it to a duration from 1s to 1m50s"},
		{[]string{"KOPS_SPOT_FORCE_GRACE=111s"}, `not "111s"`},
		{[]string{"KOPS_SPOT_FORCE_GRACE=5"}, `not "5"`},
		{[]string{"KOPS_SPOT_SHUTDOWN_GRACE=-1s"}, "KOPS_SPOT_SHUTDOWN_GRACE: set it to a duration from 0s to 3m"},
		{[]string{"KOPS_SPOT_SHUTDOWN_GRACE=181s"}, `not "181s"`},
		{[]string{"KOPS_SPOT_DAEMONSETS=first"}, `KOPS_SPOT_DAEMONSETS: set it to never or last, not "first"`},
		{[]string{"KOPS_SPOT_REBALANCE=notify"}, `KOPS_SPOT_REBALANCE: set it to ignore, cordon or drain, not "notify"`},
		{[]string{"KOPS_SPOT_SCHEDULED_CHANGE=cordon"}, `KOPS_SPOT_SCHEDULED_CHANGE: set it to ignore or drain, not "cordon"`},
		{[]string{"KOPS_SPOT_HOOKS=a,b,a"}, `naming "a" only once`},
		{[]string{"KOPS_SPOT_HOOKS=a b"}, `not "a b"`},
		{[]string{"KOPS_SPOT_REPLACE=asg,karpenter"}, `KOPS_SPOT_REPLACE: set it to auto, asg, castai, karpenter or none, not "asg,karpenter"`},
		{[]string{"KOPS_SPOT_REPLACE=castai"}, "KOPS_SPOT_REPLACE: castai requires KOPS_SPOT_CASTAI_CLUSTER and KOPS_SPOT_CASTAI_KEY"},
		{[]string{"KOPS_SPOT_REHEARSALS=drain"}, `KOPS_SPOT_REHEARSALS: set it to preview or act, not "drain"`},
		{[]string{"KOPS_SPOT_FORC=never"}, "KOPS_SPOT_FORC: unknown setting; the settings are KOPS_SPOT_CLUSTER, "},
	} {
		t.Run(strings.Join(c.env, " "), func(t *testing.T) {
			for who, read := range map[string]func([]string) error{
				"the function": func(env []string) error { _, err := ParseConfig(append(env, "KOPS_SPOT_MODE=no")); return err },
				"the policy":   func(env []string) error { _, err := PolicyOf(env); return err },
			} {
				err := read(c.env)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %q is missing in:\n%v", who, c.want, err)
				}
				if err != nil && who == "the function" && !strings.Contains(err.Error(), "KOPS_SPOT_MODE: set it to") {
					t.Errorf("the other mistakes are missing: %v", err)
				}
			}
		})
	}
	_, err := PolicyOf([]string{"KOPS_SPOT_FORCE_GRACE=1h", "KOPS_SPOT_FORCE=x", "KOPS_SPOT_CASTAI_URL=https://x"})
	for _, want := range []string{"KOPS_SPOT_FORCE_GRACE:", "KOPS_SPOT_FORCE:", "KOPS_SPOT_CASTAI_URL:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}
