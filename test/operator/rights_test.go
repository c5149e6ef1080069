package operator

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/onboard"
)

// TestRolePermissions: the template accepts a role that onboarding created; optional permissions are granted only on
// request.
func TestRolePermissions(t *testing.T) {
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
			t.Errorf("the role has %s: %t; want %t:\n%s", what, !want, want, got)
		}
	}
	const subnet, group = "subnet-0123456789abcdef0", "sg-0123456789abcdef0"

	w.onboard(cluster, node, nil)
	v := iam.Values{Partition: "aws", Region: region, Account: w.account, Cluster: cluster}
	for _, arn := range []string{v.QueueARN(iam.Failures)} {
		has(arn, true)
	}
	has(iam.NetworkPolicy.Name, false)

	all := func(want *onboard.Spec) {
		want.Set = map[string]string{"SubnetIds": subnet, "SecurityGroupIds": group}
	}
	w.onboard(cluster, node, all)
	has("subnet/"+subnet, true)
	has("security-group/"+group, true)
	w.Reset()
	w.onboard(cluster, node, all)
	if wrote := w.Written(); len(wrote) > 0 {
		t.Errorf("the second run wrote %q", wrote)
	}

	// Without the settings, a function in the VPC keeps the permissions for its network interfaces.
	w.onboard(cluster, node, nil)
	has("subnet/"+subnet, true)

	w.offboard(cluster, node)
	w.unchanged("after offboarding", before)
}
