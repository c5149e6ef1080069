package iam_test

import (
	"fmt"
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
		{installerOf(v), installerRows},
	}
}

// forced are the actions for which the guide's permissions of the function's role do not distinguish clusters.
// exceptions_test.go proves that there are no others.
func forced(a actor, action string) bool {
	return strings.HasSuffix(a.name, "with the guide's permissions") &&
		slices.ContainsFunc(exceptions, func(e exception) bool { return e.covers(action) })
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

// calls are the row's actions on the cluster's own resource, on those that differ in one aspect, and on the other
// cluster's.
func (a actor) calls(r row, own, other iam.Values) []call {
	of := r.facts
	if of == nil {
		of = thing.facts
	}
	var calls []call
	try := func(action, what string, th thing, allowed bool) {
		calls = append(calls, call{
			name:     fmt.Sprintf("%s: %s on %s %s", a.name, action, r.on.name, what),
			requests: []request{a.does(action, r.on.arn(th), of(th))},
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
				_, blind := r.blind[by]
				try(action, what, th, blind)
			}
		}
		if others := thingOf(other); r.on.arn(others) != r.on.arn(thingOf(own)) || slices.Contains(r.on.has, byTag) {
			try(action, "of another cluster", others, false)
		}
	}
	return calls
}

// TestBlindRows: where a row says that AWS does not send an aspect, AWS documents no condition key for it.
func TestBlindRows(t *testing.T) {
	t.Parallel()
	var q question
	for _, r := range slices.Concat(userRows, functionRows, lambdaRows, installerRows) {
		q.Describe = append(q.Describe, r.actions...)
	}
	actions := ask(t, q).Actions
	for _, r := range slices.Concat(userRows, functionRows, lambdaRows, installerRows) {
		for _, name := range r.actions {
			for _, typ := range actions[name].Types {
				keys := slices.Concat(actions[name].Keys, typ.Keys)
				if typ.Name == r.on.name && r.blind[byVPC] == notSent && slices.Contains(keys, "ec2:vpc") {
					t.Errorf("%s on %s can be bound to the VPC", name, typ.Name)
				}
			}
		}
	}
}
