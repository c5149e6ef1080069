package operator

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/onboard"
)

// TestTheRoleMayWhatWasAskedFor: a role that onboarding has made can be passed to the template, which has Lambda send to its
// queues and topic; what not every function needs, only those get that ask for it.
func TestTheRoleMayWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	before := w.snapshot()
	rights := func() string {
		t.Helper()
		return strings.Join(of(w.snapshot(), "role CastLambdaRoleForSpot"), "\n")
	}
	has := func(what string, want bool) {
		t.Helper()
		if got := rights(); strings.Contains(got, what) != want {
			t.Errorf("that the role has %s is %t; want %t:\n%s", what, !want, want, got)
		}
	}
	const subnet, group = "subnet-0123456789abcdef0", "sg-0123456789abcdef0"

	w.onboard(cluster, node, nil)
	v := iam.Values{Partition: "aws", Region: region, Account: w.account, Cluster: cluster}
	for _, arn := range []string{v.QueueARN(iam.Outcomes), v.QueueARN(iam.Failures), v.TopicARN(iam.Outcomes)} {
		has(arn, true)
	}
	has(iam.NetworkPolicy.Name, false)

	all := func(want *onboard.Spec) {
		want.Subnets, want.SecurityGroups = []string{subnet}, []string{group}
	}
	w.onboard(cluster, node, all)
	has("subnet/"+subnet, true)
	has("security-group/"+group, true)
	w.Reset()
	w.onboard(cluster, node, all)
	if wrote := w.Written(); len(wrote) > 0 {
		t.Errorf("the second time it writes %q", wrote)
	}

	// Without the words, a function that is in the VPC goes on to need its interfaces.
	w.onboard(cluster, node, nil)
	has("subnet/"+subnet, true)

	w.offboard(cluster, node)
	w.isStill("after offboarding", before)
}

func TestSubnetsGoWithSecurityGroups(t *testing.T) {
	for _, want := range []onboard.Spec{{Subnets: []string{"subnet-01234567"}}, {SecurityGroups: []string{"sg-01234567"}}} {
		if err := want.Check(); err == nil || !strings.Contains(err.Error(), "or neither") {
			t.Errorf("%+v: %v", want, err)
		}
	}
}
