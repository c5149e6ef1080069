package iam_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// A subject is an actor and the rows of the table that it must be able to do.
type subject struct {
	actor
	rows []row
}

// subjects are all actors whose policies we write, for a cluster, in both modes.
func subjects(v iam.Values) []subject {
	return []subject{
		{userOf(v), userRows},
		{functionOf(v, false), functionRows},
		{functionOf(v, false).withGuidePermissions(), functionRows},
		{functionOf(v, true), lambdaRows},
		{functionOf(v, true).withGuidePermissions(), lambdaRows},
		{estimatorOf(v), savingsRows},
		{installerOf(v), installerRows},
	}
}

// forced reports whether an exception lets the actor do the action on resources of all clusters.
func forced(a actor, action string) bool {
	return slices.ContainsFunc(exceptions, func(e exception) bool {
		return e.who != "" && strings.Contains(a.name, e.who) && e.covers(action)
	})
}

// TestAllowedOnlyOnOwnResources checks all rows for each of two clusters.
func TestAllowedOnlyOnOwnResources(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]iam.Values{{clusterA, clusterB}, {clusterB, clusterA}} {
		own, other := pair[0], pair[1]
		t.Run(own.Cluster, func(t *testing.T) {
			t.Parallel()
			var calls []call
			for _, s := range subjects(own) {
				for _, r := range s.rows {
					calls = append(calls, s.calls(r, own, other)...)
				}
			}
			prove(t, calls)
			t.Logf("%d requests", len(calls))
		})
	}
}

// calls are the row's actions on the cluster's own resource, and on those whose ARN differs in one aspect.
func (a actor) calls(r row, own, other iam.Values) []call {
	var calls []call
	try := func(action, what string, th thing, allowed bool) {
		calls = append(calls, call{
			name:     fmt.Sprintf("%s: %s on %s %s", a.name, action, r.on.name, what),
			requests: []request{a.does(action, r.on.arn(th), r.of(th))},
			allowed:  allowed,
		})
	}
	for _, action := range r.actions {
		try(action, "of its own cluster", thingOf(own), true)
		if forced(a, action) {
			continue
		}
		for _, by := range r.on.has {
			for what, th := range thingOf(own).others(by, other) {
				try(action, what, th, false)
			}
		}
	}
	return calls
}

// TestNothingOfOthers: each actor tries everything that any actor may do with its own cluster's resources, on those of
// another cluster in another VPC or in the same, on resources without a cluster's tag, and on the control plane's.
func TestNothingOfOthers(t *testing.T) {
	t.Parallel()
	own, other, untagged, neighbour := someThings()
	things := map[string]thing{"of another cluster": other, "of another cluster in its VPC": neighbour,
		"without a cluster's tag": untagged}
	for _, role := range []string{"control-plane", "master", "apiserver"} {
		master := own
		master.role = role
		things["of the "+role] = master
	}
	all := subjects(clusterA)
	actors := append(all[:len(all)-1:len(all)-1], subject{roleMadeBy(clusterA), nil}) // not the installer
	var calls []call
	for _, a := range actors {
		for i, s := range all {
			for _, r := range s.rows {
				for _, action := range r.actions {
					if forced(a.actor, action) || r.on.name == everything.name {
						continue
					}
					try := func(what string, th thing, allowed bool) {
						calls = append(calls, call{fmt.Sprintf("%s: %s on %s %s", a.name, action, r.on.name, what),
							[]request{a.does(action, r.on.arn(th), r.of(th))}, allowed})
					}
					mine := a.name == all[i].name
					if !mine && !a.may(action, r.on) {
						try("of its own cluster", own, false)
					}
					for what, th := range things {
						switch {
						case th.role != "" && (r.on.name != anInstance.name && r.on.name != aGroup.name || !mine && a.may(action, r.on)),
							th.tag == "" && !r.on.tags, mine && r.anyTag, !r.differs(t, action, own, th):
							continue
						}
						try(what, th, mine && (th.tag == "" && r.nobodys || th.role != "" && r.masters))
					}
				}
			}
		}
	}
	prove(t, calls)
	t.Logf("%d requests", len(calls))
}

// may reports whether the actor has a row with the action on a kind. Lambda may also use what the function's code may.
func (s subject) may(action string, on kind) bool {
	rows := s.rows
	if s.role() == "Lambda" {
		rows = slices.Concat(functionRows, lambdaRows)
	}
	return slices.ContainsFunc(rows, func(r row) bool {
		return r.on.name == on.name && slices.Contains(r.actions, action)
	})
}

// differs reports whether IAM can distinguish the requests about two resources: AWS documents a condition key for the
// action that differs, or their ARNs do.
func (r row) differs(t *testing.T, action string, a, b thing) bool {
	if r.on.arn(a) != r.on.arn(b) {
		return true
	}
	keys := slices.Collect(maps.Keys(documentedKeys(t, action, r, clusterA, clusterB)))
	visible := func(th thing) facts {
		f := facts{}
		for key, value := range r.of(th) {
			if slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key) }) {
				f[key] = value
			}
		}
		return f
	}
	return !reflect.DeepEqual(visible(a), visible(b))
}
