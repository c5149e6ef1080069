package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/savings"
	"github.com/castai/kops-spot/internal/spot"
)

// Source is where to read from.
type Source struct {
	Cluster dynamic.Interface
	AWS     *awsadmin.Account
	Name    string               // of the kOps cluster
	Nodes   map[string]NodeFacts // by name
	Prices  *Prices              // nil to read them from AWS
}

// Inventory is what was read.
type Inventory struct {
	savings.Cluster
	savings.Catalog
	Risks []savings.Risk
}

// ErrDenied means that a permission is missing. The findings say which.
var ErrDenied = errors.New("permissions are missing: docs/savings.md has a ClusterRole and an IAM policy with all of them")

// step is one kind of request, which needs one permission.
type step struct {
	permission string
	do         func(context.Context) (detail string, err error)
}

// Permissions returns all permissions: those that connecting needs, which every command does, and those of Read.
func (s Source) Permissions() []string {
	all := []string{"get namespaces", "ec2:DescribeInstances"}
	for _, step := range s.steps(&Inventory{}) {
		all = append(all, step.permission)
	}
	return all
}

// Read reads everything, and says of each permission whether it is granted. If one is missing, it goes on with the
// others, so that one run names all that are missing.
func (s Source) Read(ctx context.Context) (all *Inventory, found change.Findings, err error) {
	all = &Inventory{}
	for _, step := range s.steps(all) {
		detail, err := step.do(ctx)
		f := change.Finding{Level: change.OK, Name: step.permission, Detail: detail}
		switch {
		case apierrors.IsForbidden(err):
			f.Level, f.Detail, f.Advice = change.Fail, err.Error(), "allow it in the cluster, for all namespaces"
		case errors.Is(err, awsadmin.ErrDenied):
			f.Level, f.Detail = change.Fail, err.Error()
		case err != nil:
			return nil, found, err
		}
		found = append(found, f)
	}
	if found.Failed() {
		return nil, found, ErrDenied
	}
	return all, found, nil
}

func (s Source) steps(into *Inventory) (all []step) {
	for _, k := range objects(&into.Cluster, s.Nodes) {
		all = append(all, step{"list " + k.resource.GroupResource().String(), func(ctx context.Context) (string, error) {
			n, err := k.list(ctx, s.Cluster)
			return fmt.Sprint(n), err
		}})
	}
	all = append(all, step{"autoscaling:DescribeAutoScalingGroups", func(ctx context.Context) (string, error) {
		groups, err := s.AWS.GroupsWithoutHooks(ctx, spot.TagCluster, s.Name)
		if err == nil {
			into.setGroups(groups, s.Name)
		}
		return fmt.Sprint(len(into.Groups)), err
	}}, step{"ec2:DescribeInstanceTypes", func(ctx context.Context) (string, error) {
		types, err := s.AWS.InstanceTypes(ctx, into.families())
		into.Types = map[string]savings.InstanceType{}
		for _, t := range types {
			into.Types[t.Name] = savings.InstanceType{Architecture: t.Architecture, VCPU: int64(t.CPUs),
				Memory: t.MemoryMiB << 20, GPUs: int64(t.GPUs), Pods: int64(t.Pods), Spot: t.Spot}
		}
		return fmt.Sprint(len(types)), err
	}})
	if s.Prices != nil {
		into.OnDemand, into.Catalog.Spot = s.Prices.OnDemand, s.Prices.offers()
		return all
	}
	return append(all, step{"ec2:DescribeSpotPriceHistory", func(ctx context.Context) (string, error) {
		prices, err := s.AWS.SpotPrices(ctx, into.spotTypes(), into.zones())
		into.Catalog.Spot = map[savings.Offer]float64{}
		for _, p := range prices {
			into.Catalog.Spot[savings.Offer{Type: p.Type, Zone: p.Zone}] = p.Price
		}
		return fmt.Sprint(len(prices)), err
	}}, step{"pricing:GetProducts", func(ctx context.Context) (detail string, err error) {
		into.OnDemand, err = s.AWS.OnDemandPrices(ctx, slices.Sorted(maps.Keys(into.Types)))
		return fmt.Sprint(len(into.OnDemand)), err
	}})
}

// setGroups sets the groups of workers, and which of them allow few types or one zone.
func (i *Inventory) setGroups(groups []awsadmin.Group, cluster string) {
	i.Risks = []savings.Risk{}
	types := map[string][]string{} // of the nodes
	for _, n := range i.Nodes {
		if !n.ControlPlane {
			types[n.Group] = append(types[n.Group], typeOf(n))
		}
	}
	for _, g := range groups {
		name := cmp.Or(g.Tags[spot.TagInstanceGroup], strings.TrimSuffix(g.Name, "."+cluster))
		of, hasNodes := types[name]
		if !hasNodes || spot.DefaultPolicy(cluster).OtherGroupReason(g.Name, g.Tags) != "" {
			continue
		}
		one := savings.Group{Name: name, Types: g.InstanceTypes, Zones: g.Zones}
		if len(one.Types) == 0 { // the launch template's type, or the types that requirements have chosen
			one.Types = distinct(of)
		}
		i.Groups = append(i.Groups, one)
		if risk, advice := install.CapacityRisk(g); risk != "" {
			i.Risks = append(i.Risks, savings.Risk{Group: name, Allows: risk, Advice: advice})
		}
	}
}

// families returns patterns for the types of the same families as those of the nodes and the groups.
func (i *Inventory) families() (patterns []string) {
	add := func(name string) {
		if family, _, ok := strings.Cut(name, "."); ok {
			patterns = append(patterns, family+".*")
		}
	}
	for _, n := range i.Nodes {
		add(typeOf(n))
	}
	for _, g := range i.Groups {
		for _, t := range g.Types {
			add(t)
		}
	}
	return distinct(patterns)
}

func (i *Inventory) zones() (all []string) {
	for _, n := range i.Nodes {
		all = append(all, n.Labels[corev1.LabelTopologyZone])
	}
	for _, g := range i.Groups {
		all = append(all, g.Zones...)
	}
	return slices.DeleteFunc(distinct(all), func(zone string) bool { return zone == "" })
}

// spotTypes returns the types offered as Spot Instances or, if these could not be read, those of the nodes.
func (i *Inventory) spotTypes() (names []string) {
	if len(i.Types) == 0 {
		for _, n := range i.Nodes {
			names = append(names, typeOf(n))
		}
	}
	for name, t := range i.Types {
		if t.Spot {
			names = append(names, name)
		}
	}
	return distinct(names)
}

func typeOf(n savings.Node) string { return n.Labels[corev1.LabelInstanceTypeStable] }

func distinct(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }
