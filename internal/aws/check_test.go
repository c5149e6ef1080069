package aws

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

func described(next string, ids ...string) string {
	var b strings.Builder
	for _, i := range ids {
		b.WriteString("<item><instancesSet><item><instanceId>" + i + "</instanceId></item></instancesSet></item>")
	}
	return "<R><reservationSet>" + b.String() + "</reservationSet><nextToken>" + next + "</nextToken></R>"
}

// TestInstancesOfManyIDs: a page may be short or empty without being the last, and no call has more IDs than EC2
// allows.
func TestInstancesOfManyIDs(t *testing.T) {
	c, r := recorded(t, described("two"), described("three", "i-00000001"), described("", "i-00000002"),
		described("", "i-00000003"))
	ids := make([]string, idsAtOnce+1)
	for n := range ids {
		ids[n] = fmt.Sprintf("i-%08x", n)
	}
	found, err := c.InstancesOf(t.Context(), ids)
	if err != nil || len(found) != 3 || found["i-00000003"].ID != "i-00000003" {
		t.Errorf("found %v, %v", found, err)
	}
	var tokens []string
	for n, q := range r.asked {
		tokens = append(tokens, q.Get("NextToken"))
		first, most := ids[0], idsAtOnce
		if n == 3 {
			first, most = ids[idsAtOnce], 1
		}
		if q.Get("Filter.1.Name") != "instance-id" || q.Get("Filter.1.Value.1") != first ||
			q.Has(fmt.Sprintf("Filter.1.Value.%d", most+1)) || q.Has("InstanceId.1") {
			t.Errorf("call %d requests %v", n+1, q)
		}
	}
	if want := []string{"", "two", "three", ""}; !slices.Equal(tokens, want) {
		t.Errorf("tokens %q, want %q", tokens, want)
	}

	c, _ = recorded(t) // no request is sent
	if found, err := c.InstancesOf(t.Context(), nil); err != nil || found == nil || len(found) != 0 {
		t.Errorf("without IDs: %v, %v", found, err)
	}
}

func TestInstanceFields(t *testing.T) {
	c, _ := recorded(t, `<R><reservationSet><item><instancesSet><item><instanceId>`+id+`</instanceId>
		<instanceType>m5.large</instanceType><placement><availabilityZone>eu-west-1b</availabilityZone></placement>
		<hibernationOptions><configured>true</configured></hibernationOptions></item></instancesSet></item></reservationSet></R>`, described("", id))
	i, err := c.Instance(t.Context(), id)
	if err != nil || !i.Hibernates || i.Type != "m5.large" || i.Zone != "eu-west-1b" {
		t.Errorf("got %+v, %v", i, err)
	}
	if i, err := c.Instance(t.Context(), id); err != nil || i.Hibernates || i.Zone != "" {
		t.Errorf("no placement, no hibernation options: %+v, %v", i, err)
	}
}

// TestReadable: the check sends a minimal request to both services and reports which of them denies it.
func TestReadable(t *testing.T) {
	const groups = `<R><DescribeAutoScalingGroupsResult/></R>`
	c, r := recorded(t, described(""), groups)
	if err := c.Readable(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	if q := r.asked[0]; q.Get("Filter.1.Name") != "tag:KubernetesCluster" ||
		q.Get("Filter.1.Value.1") != "example.com" || q.Get("MaxResults") != "5" {
		t.Errorf("EC2 gets %v", q)
	}
	if q := r.asked[1]; q.Get("MaxRecords") != "1" {
		t.Errorf("Auto Scaling gets %v", q)
	}

	noEC2, noScaling := ec2Error(403, "UnauthorizedOperation", "no"), scaleError(403, "AccessDenied", "no")
	yes := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, groups) }
	for name, tt := range map[string]struct {
		ec2, scaling http.HandlerFunc
		want         []string
	}{
		"EC2":          {noEC2, yes, []string{"allow ec2:DescribeInstances"}},
		"Auto Scaling": {yes, noScaling, []string{"allow autoscaling:DescribeAutoScalingGroups"}},
		"both": {noEC2, noScaling,
			[]string{"allow ec2:DescribeInstances", "allow autoscaling:DescribeAutoScalingGroups"}},
	} {
		err := cloudAt(t, func(w http.ResponseWriter, q *http.Request) {
			if q.FormValue("Action") == "DescribeInstances" {
				tt.ec2(w, q)
				return
			}
			tt.scaling(w, q)
		}).Readable(t.Context(), "example.com")
		if !errors.Is(err, spot.ErrPermanent) || strings.Count(err.Error(), "allow ") != len(tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	}
}
