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

// CapacityRisks returns a warning for each group of Spot instances that allows few instance types or one zone: its
// replacements fail when EC2 has no capacity there.
func CapacityRisks(groups []awsadmin.Group, instances []awsadmin.Instance) (found change.Findings) {
	for _, g := range groups {
		if !slices.ContainsFunc(instances, func(i awsadmin.Instance) bool {
			return i.Spot && i.Tags[spot.TagGroup] == g.Name
		}) {
			continue
		}
		name, _, _ := strings.Cut(g.Name, ".")
		var risks, advice []string
		if n := g.InstanceTypes; n > 0 && n < leastTypes {
			risks = append(risks, plural(n, "instance type"))
			advice = append(advice, fmt.Sprintf("name at least %d types in spec.mixedInstancesPolicy.instances", leastTypes))
		}
		if n := g.Zones; n == 1 {
			risks, advice = append(risks, plural(n, "zone")), append(advice, "add subnets of other zones to spec.subnets")
		}
		if len(risks) > 0 {
			found = append(found, change.Finding{Level: change.Warn, Name: "capacity",
				Detail: fmt.Sprintf("group %s has Spot instances and allows %s: replacements fail when EC2 has no capacity for them",
					g.Name, strings.Join(risks, " and ")),
				Advice: strings.Join(advice, ", and ") + ": kops edit instancegroup " + name})
		}
	}
	return found
}

func plural(n int, what string) string {
	if n == 1 {
		return "only 1 " + what
	}
	return fmt.Sprintf("only %d %ss", n, what)
}
