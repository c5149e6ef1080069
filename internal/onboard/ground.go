package onboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/kube"
)

// tagKopsCluster is the tag in which kOps writes the cluster's name on everything that it makes in EC2.
const tagKopsCluster = "KubernetesCluster"

// ClusterRef is which cluster is meant: by its name, and by what led to it.
type ClusterRef struct {
	Cluster string
	Context string // the kubeconfig's
}

// NodeInstance is an EC2 instance as a node names it.
type NodeInstance struct{ Node, ID, Region string }

// Environment is where a cluster stands in AWS.
type Environment struct {
	iam.Values        // all but the function's
	Caller     string // ARN of whoever runs this

}

// EC2API is what of AWS tells whether it is the right account and region.
type EC2API interface {
	Region() string
	Caller(ctx context.Context) (awsadmin.Caller, error)
	Tagged(ctx context.Context, key, value string) ([]awsadmin.Instance, error)
	Instances(ctx context.Context, ids []string) ([]awsadmin.Instance, error)
}

var (
	// InstanceID is what ids of EC2 instances look like.
	InstanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

	// zoneRegion is the region that begins a zone's name, that of a local or wavelength zone too: us-west-2-lax-1a.
	zoneRegion = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+`)
)

// InstanceOf reads which instance a node is, and in which region: kubelet, kOps or the cloud controller write
// aws:///<zone>/<instance id> into its spec.providerID.
func InstanceOf(providerID string) (id, region string, ok bool) {
	path, ok := strings.CutPrefix(providerID, "aws://")
	parts := strings.Split(path, "/")
	if !ok || len(parts) < 2 || !InstanceID.MatchString(parts[len(parts)-1]) {
		return "", "", false
	}
	return parts[len(parts)-1], zoneRegion.FindString(parts[len(parts)-2]), true
}

// NodeInstances reads which instances the cluster's nodes are.
func NodeInstances(ctx context.Context, cluster dynamic.Interface) (all []NodeInstance, err error) {
	kind := schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	nodes, err := cluster.Resource(kind).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", kube.Advise(err))
	}
	for _, n := range nodes.Items {
		providerID, _, _ := unstructured.NestedString(n.Object, "spec", "providerID")
		if id, region, ok := InstanceOf(providerID); ok {
			all = append(all, NodeInstance{n.GetName(), id, region})
		}
	}
	return all, nil
}

// RegionOf is the region that the nodes are in, which must be the one that was said.
func RegionOf(machines []NodeInstance, said string, m ClusterRef) (string, error) {
	regions := map[string]bool{}
	for _, one := range machines {
		regions[one.Region] = true
	}
	switch all := slices.Sorted(maps.Keys(regions)); {
	case len(machines) == 0:
		return "", fmt.Errorf("the kubeconfig's context %s leads to a cluster of which no node says that it is an EC2 instance "+
			"(spec.providerID): choose the kOps cluster on AWS with --context", m.Context)
	case len(all) > 1:
		return "", fmt.Errorf("the nodes of the kubeconfig's context %s are in more than one region: %s: a kOps cluster is in one", m.Context, strings.Join(all, ", "))
	case said != "" && said != all[0]:
		return "", fmt.Errorf("this is the wrong cluster or the wrong region: --region says %s, and the nodes of the kubeconfig's context %s are in %s: "+
			"choose the other with --context, or leave --region out", said, m.Context, all[0])
	default:
		return all[0], nil
	}
}

// VerifyCluster makes sure that kubeconfig and credentials lead to the same cluster, and says where it is: the nodes' instances
// must be in this account and region, with the cluster's tag. Every command that changes something in AWS asks it first.
func VerifyCluster(ctx context.Context, aws EC2API, machines []NodeInstance, m ClusterRef) (Environment, []awsadmin.Instance, error) {
	who, err := aws.Caller(ctx)
	if err != nil {
		return Environment{}, nil, err
	}
	g := Environment{Caller: who.ARN}
	g.Partition, g.Account, g.Region, g.Cluster = who.Partition, who.Account, aws.Region(), m.Cluster
	tagged, err := aws.Tagged(ctx, tagKopsCluster, m.Cluster)
	if err != nil {
		return g, nil, err
	}
	ids := map[string]bool{}
	for _, one := range machines {
		ids[one.ID] = true
	}
	var ours []awsadmin.Instance
	vpcs := map[string]bool{}
	for _, i := range tagged {
		if ids[i.ID] {
			ours = append(ours, i)
			vpcs[i.VPC] = true
		}
	}
	if len(ours) == 0 {
		found, err := aws.Instances(ctx, slices.Sorted(maps.Keys(ids)))
		if err != nil {
			return g, nil, err
		}
		return g, nil, mismatchError(g, m, machines, tagged, found)
	}
	if len(vpcs) > 1 {
		return g, nil, fmt.Errorf("the instances of %s are in more than one VPC: %s: a kOps cluster is in one",
			m.Cluster, strings.Join(slices.Sorted(maps.Keys(vpcs)), ", "))
	}
	g.VPC = ours[0].VPC
	return g, tagged, nil
}

// wrong says which of kubeconfig and credentials points elsewhere, as far as AWS lets know.
func mismatchError(g Environment, m ClusterRef, machines []NodeInstance, tagged, found []awsadmin.Instance) error {
	begin := fmt.Sprintf("nothing was changed: kubeconfig and AWS credentials do not lead to the same cluster: the kubeconfig's context %s leads to %s, whose node %s is the instance %s",
		m.Context, m.Cluster, machines[0].Node, machines[0].ID)
	where := fmt.Sprintf("account %s and region %s, to which the credentials of %s lead", g.Account, g.Region, g.Caller)
	other := ""
	for _, i := range found {
		other = cmp.Or(other, i.Tags[tagKopsCluster])
	}
	switch {
	case len(found) > 0 && other != "":
		return fmt.Errorf("%s; in %s, that is tagged as of %s: say --cluster %s if that is the cluster you mean, and otherwise choose another context with --context",
			begin, where, other, other)
	case len(found) > 0:
		return fmt.Errorf("%s; it is in %s, and without the tag %s: kops update cluster puts that on the instances of a kOps cluster",
			begin, where, tagKopsCluster)
	case len(tagged) > 0:
		return fmt.Errorf("%s; %s have no such instance, but others of a cluster of that name: it is the kubeconfig that leads elsewhere: choose the context with --context",
			begin, where)
	}
	return fmt.Errorf("%s; %s have neither that instance nor any of %s: it is the credentials that lead elsewhere: choose them with AWS_PROFILE, "+
		"or if you mean another cluster, choose it with --context", begin, where, m.Cluster)
}

// Profiles tells which roles an instance profile passes on.
type Profiles interface {
	RolesOfProfile(ctx context.Context, profile string) ([]string, error)
}

// NodeRoles finds the roles that the cluster's workers run with. Those of the control plane are not among them: whoever may
// pass one of these to a machine of his own is its cluster's master.
func NodeRoles(ctx context.Context, aws Profiles, instances []awsadmin.Instance) (roles []string, err error) {
	workers, masters := map[string]bool{}, map[string]bool{}
	for _, i := range instances {
		switch {
		case i.Profile == "" || i.Ended:
		case isWorker(i):
			workers[i.Profile] = true
		default:
			masters[i.Profile] = true
		}
	}
	for _, profile := range slices.Sorted(maps.Keys(workers)) {
		if masters[profile] {
			continue
		}
		names, err := aws.RolesOfProfile(ctx, profile)
		if errors.Is(err, awsadmin.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		roles = append(roles, names...)
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

func isWorker(i awsadmin.Instance) bool {
	for _, role := range []string{"control-plane", "master", "apiserver", "bastion"} {
		if _, has := i.Tags["k8s.io/role/"+role]; has {
			return false
		}
	}
	return true
}
