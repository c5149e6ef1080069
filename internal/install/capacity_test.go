package install

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

func TestCapacityRisks(t *testing.T) {
	five, two := []string{"m5.large", "m5a.large", "m6i.large", "m6a.large", "m7i.large"}, []string{"a", "b"}
	for name, c := range map[string]struct {
		group    awsadmin.Group
		onDemand bool
		want     []string // in the finding; empty for none
	}{
		"one of each": {group: awsadmin.Group{Zones: two[:1]},
			want: []string{"allows only 1 instance type and only 1 zone", "name at least 6 types", "add subnets", "kops edit instancegroup nodes"}},
		"five types":            {group: awsadmin.Group{InstanceTypes: five, Zones: two}, want: []string{"allows only 5 instance types:"}},
		"six types":             {group: awsadmin.Group{InstanceTypes: append(five, "r5.large"), Zones: two}},
		"one zone":              {group: awsadmin.Group{InstanceTypes: append(five, five...), Zones: two[:1]}, want: []string{"allows only 1 zone:"}},
		"types by requirements": {group: awsadmin.Group{ByRequirements: true, Zones: two}},
		"on demand":             {group: awsadmin.Group{Zones: two[:1]}, onDemand: true},
	} {
		c.group.Name = "nodes.prod.example.com"
		found := CapacityRisks([]awsadmin.Group{c.group}, []awsadmin.Instance{
			{Spot: !c.onDemand, Tags: map[string]string{"aws:autoscaling:groupName": c.group.Name}},
			{Spot: true, Tags: map[string]string{"aws:autoscaling:groupName": "other.prod.example.com"}}})
		if len(c.want) == 0 {
			if len(found) > 0 {
				t.Errorf("%s: got %+v, want none", name, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Level != change.Warn {
			t.Fatalf("%s: got %+v, want a warning", name, found)
		}
		for _, want := range c.want {
			if text := found[0].Detail + "\n" + found[0].Advice; !strings.Contains(text, want) {
				t.Errorf("%s: got %q, want %q", name, text, want)
			}
		}
	}
}
