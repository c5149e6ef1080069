package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

// leastTypes is how many instance types a group of Spot instances should allow. AWS advises being flexible across
// at least ten; kOps users rarely name so many.
const leastTypes = 6

// CapacityRisks returns a warning for each group of Spot instances that allows few instance types or one zone.
func CapacityRisks(groups []awsadmin.Group, instances []awsadmin.Instance) (found change.Findings) {
	for _, g := range groups {
		risk, advice := CapacityRisk(g)
		if risk != "" && slices.ContainsFunc(instances, func(i awsadmin.Instance) bool {
			return i.Spot && i.Tags[spot.TagGroup] == g.Name
		}) {
			found = append(found, change.Finding{Level: change.Warn, Name: "capacity",
				Detail: fmt.Sprintf("group %s has Spot instances and allows %s: replacements fail when EC2 has no capacity for them",
					g.Name, risk),
				Advice: advice})
		}
	}
	return found
}

// CapacityRisk says that a group allows few instance types or one zone: with Spot instances, EC2 interrupts it more
// often, and replacements fail when EC2 has no capacity there. It is empty for other groups.
func CapacityRisk(g awsadmin.Group) (risk, advice string) {
	name, _, _ := strings.Cut(g.Name, ".")
	var risks, todo []string
	if n := max(len(g.InstanceTypes), 1); !g.ByRequirements && n < leastTypes {
		risks = append(risks, plural(n, "instance type"))
		todo = append(todo, fmt.Sprintf("name at least %d types in spec.mixedInstancesPolicy.instances", leastTypes))
	}
	if n := len(g.Zones); n == 1 {
		risks, todo = append(risks, plural(n, "zone")), append(todo, "add subnets of other zones to spec.subnets")
	}
	if len(risks) == 0 {
		return "", ""
	}
	return strings.Join(risks, " and "), strings.Join(todo, ", and ") + ": kops edit instancegroup " + name
}

func plural(n int, what string) string {
	if n == 1 {
		return "only 1 " + what
	}
	return fmt.Sprintf("only %d %ss", n, what)
}
