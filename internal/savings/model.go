// Package savings estimates what a cluster would cost on Spot instances, on fewer machines and on machines of another
// size. It computes only: the command line reads the cluster and the prices.
package savings

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// HoursPerMonth converts hourly prices, as in the AWS Pricing Calculator.
const HoursPerMonth = 730

// Cluster is what the estimates are based on. Objects are as the API server returns them, of all namespaces.
type Cluster struct {
	Nodes      []Node
	Groups     []Group
	Pods       []corev1.Pod
	DaemonSets []appsv1.DaemonSet
	Budgets    []policyv1.PodDisruptionBudget
	Claims     []corev1.PersistentVolumeClaim
	Volumes    []corev1.PersistentVolume
	CSINodes   []storagev1.CSINode // how many volumes fit on a node
	Namespaces []corev1.Namespace  // for the namespace selectors of pod affinity
}

// Node is a node and what Kubernetes does not say about it. Its type and its zone are its labels.
type Node struct {
	corev1.Node
	// Group is the kOps instance group: the instance's tag kops.k8s.io/instancegroup, or the label of that name, which
	// not all nodes have. A node without a group stays as it is, with its pods.
	Group string
	Spot  bool
	// ControlPlane is set for nodes with the role control-plane, master or apiserver. They stay on demand.
	ControlPlane bool
}

// Group is a kOps instance group. Groups that are not listed have the types and the zones of their nodes.
type Group struct {
	Name  string
	Types []string // instance types that it may launch: a mixed instances policy has several
	Zones []string // zones in which it may launch
}

// Catalog contains instance types and prices of the cluster's region, in US dollars per hour, for Linux and shared
// tenancy. A node of a type without a price is left out, and such a type is not proposed.
type Catalog struct {
	Types    map[string]InstanceType
	OnDemand map[string]float64 // by type
	Spot     map[Offer]float64
}

// Offer is what a Spot price is for.
type Offer struct{ Type, Zone string }

// InstanceType is what EC2 says about a type.
type InstanceType struct {
	Architecture string // Kubernetes' name: amd64 or arm64
	VCPU         int64
	Memory       int64 // bytes, as sold: the kernel takes some of it
	GPUs         int64
	// Pods is how many pods the AWS VPC CNI has addresses for. It counts only in groups whose nodes have this limit.
	Pods int64
	Spot bool // offered as Spot
}

// Report contains the three estimates, all for the pods that run now.
type Report struct {
	Now         Fleet    `json:"now"`
	Spot        Estimate `json:"spot"`    // the same machines, on Spot where the pods allow it
	Packed      Estimate `json:"packed"`  // on Spot, and packed on fewer machines of the same types
	Resized     Estimate `json:"resized"` // on Spot, packed, on the best size of the same families
	Assumptions []string `json:"assumptions"`
}

// Estimates returns the estimates in the order in which they build on each other.
func (r Report) Estimates() []Estimate { return []Estimate{r.Spot, r.Packed, r.Resized} }

// Fleet is a set of machines and what they cost.
type Fleet struct {
	Monthly  float64   `json:"monthly"` // US dollars, for HoursPerMonth hours
	Machines int       `json:"machines"`
	Rows     []Row     `json:"rows"` // machines that differ in their name only are one row
	List     []Machine `json:"-"`    // each machine, with its pods
}

// Row counts machines of one kind.
type Row struct {
	Group  string  `json:"group"` // empty: in no instance group
	Type   string  `json:"type"`
	Zone   string  `json:"zone"`
	Spot   bool    `json:"spot"`
	Count  int     `json:"count"`
	Hourly float64 `json:"hourly"` // US dollars for one machine
}

// Machine is a node that stays, or one to be launched.
type Machine struct {
	Row           // Count is 1
	Node string   // the node that stays; empty for a new machine
	Pods []string // namespace/name, without those of DaemonSets and static pods
}

// Estimate is a fleet that would run the pods, and how good it is.
type Estimate struct {
	Fleet
	// Bound is a cost that no fleet under the same assumptions can go below, in US dollars a month. It adds up the
	// pods' requests and ignores all other constraints, so the best fleet may well cost more.
	Bound float64 `json:"bound"`
	// Headroom is how many of the machines only allow for the scheduler, which does not pack tightly.
	Headroom        int      `json:"headroom"`
	HeadroomMonthly float64  `json:"headroom_monthly"` // US dollars, part of Monthly
	Reasons         []Reason `json:"reasons"`
}

// Gap returns how far the estimate, with its headroom, is above the bound: 0.1 is 10 %.
func (e Estimate) Gap() float64 {
	if e.Bound == 0 {
		return 0
	}
	return e.Monthly/e.Bound - 1
}

// Reason is why some pods or machines do not cost less. Subjects are namespace/name of pods, names of nodes or names of
// instance groups.
type Reason struct {
	Text     string   `json:"text"`
	Subjects []string `json:"subjects"`
}

// newFleet adds up machines and sorts them.
func newFleet(list []Machine) Fleet {
	f := Fleet{Machines: len(list), List: list}
	slices.SortStableFunc(list, func(a, b Machine) int { return compareRows(a.Row, b.Row) })
	for _, m := range list {
		f.Monthly += m.Hourly * HoursPerMonth
		if n := len(f.Rows); n > 0 && compareRows(f.Rows[n-1], m.Row) == 0 {
			f.Rows[n-1].Count++
		} else {
			f.Rows = append(f.Rows, m.Row)
		}
	}
	return f
}

func compareRows(a, b Row) int {
	lifecycle := map[bool]int{true: 1}
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(lifecycle[a.Spot], lifecycle[b.Spot]),
		cmp.Compare(a.Type, b.Type), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Hourly, b.Hourly))
}
