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
	"github.com/castai/kops-spot/internal/spot"
)

// tagKopsCluster is the tag with the cluster's name on all EC2 resources of kOps.
const tagKopsCluster = "KubernetesCluster"

// ClusterRef is a cluster's name and its context in the kubeconfig.
type ClusterRef struct{ Cluster, Context string }

// NodeInstance is the EC2 instance of a node.
type NodeInstance struct {
	Node, ID, Region string
	ControlPlane     bool // or of an API server

	Group string // kOps' label of the instance group; empty in groups that were not created by kops create
	OS    string // status.nodeInfo.osImage
	Ready bool
}

// Environment is a cluster's place in AWS.
type Environment struct {
	iam.Values        // without those of the function
	Caller     string // ARN of the operator
}

// EC2API is what VerifyCluster calls.
type EC2API interface {
	Region() string
	Caller(ctx context.Context) (awsadmin.Caller, error)
	Tagged(ctx context.Context, key, value string) ([]awsadmin.Instance, error)
	Instances(ctx context.Context, ids []string) ([]awsadmin.Instance, error)
}

var (
	// InstanceID matches the IDs of EC2 instances.
	InstanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

	// zoneRegion matches the region in a zone's name, also of a local or wavelength zone: us-west-2-lax-1a.
	zoneRegion = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+`)
)

// InstanceOf parses a node's spec.providerID: aws:///<zone>/<instance ID>.
func InstanceOf(providerID string) (id, region string, ok bool) {
	path, ok := strings.CutPrefix(providerID, "aws://")
	parts := strings.Split(path, "/")
	if !ok || len(parts) < 2 || !InstanceID.MatchString(parts[len(parts)-1]) {
		return "", "", false
	}
	return parts[len(parts)-1], zoneRegion.FindString(parts[len(parts)-2]), true
}

// NodeInstances returns the instances of the cluster's nodes.
func NodeInstances(ctx context.Context, cluster dynamic.Interface) (all []NodeInstance, err error) {
	kind := schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	nodes, err := cluster.Resource(kind).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", kube.Advise(err))
	}
	for _, n := range nodes.Items {
		providerID, _, _ := unstructured.NestedString(n.Object, "spec", "providerID")
		if id, region, ok := InstanceOf(providerID); ok {
			one := NodeInstance{Node: n.GetName(), ID: id, Region: region, Group: n.GetLabels()[spot.TagInstanceGroup]}
			one.OS, _, _ = unstructured.NestedString(n.Object, "status", "nodeInfo", "osImage")
			conditions, _, _ := unstructured.NestedSlice(n.Object, "status", "conditions")
			for _, c := range conditions {
				c, _ := c.(map[string]any)
				one.Ready = one.Ready || c["type"] == "Ready" && c["status"] == "True"
			}
			for _, role := range []string{"control-plane", "master", "api-server"} {
				_, has := n.GetLabels()["node-role.kubernetes.io/"+role]
				one.ControlPlane = one.ControlPlane || has
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// RegionOf returns the region of the nodes. If they name several or none, --region decides.
func RegionOf(nodes []NodeInstance, flag string, m ClusterRef) (string, error) {
	var all []string
	for _, n := range nodes {
		if n.Region != "" {
			all = append(all, n.Region)
		}
	}
	slices.Sort(all)
	switch all = slices.Compact(all); {
	case len(nodes) == 0:
		return "", fmt.Errorf("in the kubeconfig's context %s, no node's spec.providerID names an EC2 instance: "+
			"choose a kOps cluster on AWS with --context", m.Context)
	case len(all) == 0 && flag == "":
		return "", fmt.Errorf("the nodes of the kubeconfig's context %s do not name their region in spec.providerID: "+
			"set --region", m.Context)
	case len(all) == 0, slices.Contains(all, flag):
		return flag, nil
	case flag != "":
		return "", fmt.Errorf("the nodes of the kubeconfig's context %s are in %s, and --region is %s: "+
			"choose another context with --context, or omit --region", m.Context, strings.Join(all, ", "), flag)
	case len(all) > 1:
		return "", fmt.Errorf("the nodes of the kubeconfig's context %s are in several regions: %s: "+
			"set --region to that of the kOps cluster", m.Context, strings.Join(all, ", "))
	}
	return all[0], nil
}

// VerifyCluster makes sure that kubeconfig and AWS credentials belong to the same cluster: at least one node's instance
// must be in this account and region, with the cluster's tag. It returns all instances with that tag.
func VerifyCluster(ctx context.Context, aws EC2API, nodes []NodeInstance, m ClusterRef) (
	g Environment, tagged []awsadmin.Instance, err error) {
	who, err := aws.Caller(ctx)
	if err != nil {
		return g, nil, err
	}
	g.Caller, g.Partition, g.Account, g.Region, g.Cluster = who.ARN, who.Partition, who.Account, aws.Region(), m.Cluster
	if tagged, err = aws.Tagged(ctx, tagKopsCluster, m.Cluster); err != nil {
		return g, nil, err
	}
	var ids, vpcs []string
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	for _, i := range tagged {
		if slices.Contains(ids, i.ID) {
			vpcs = append(vpcs, i.VPC)
		}
	}
	slices.Sort(vpcs)
	switch vpcs = slices.Compact(vpcs); len(vpcs) {
	case 0:
		found, err := aws.Instances(ctx, ids)
		if err != nil {
			return g, nil, err
		}
		return g, nil, mismatchError(g, m, nodes[0], tagged, found)
	case 1:
		g.VPC = vpcs[0]
		return g, tagged, nil
	}
	return g, nil, fmt.Errorf("the instances of %s are in several VPCs: %s: a kOps cluster has only one",
		m.Cluster, strings.Join(vpcs, ", "))
}

// mismatchError says whether to change the kubeconfig's context or the credentials, as far as AWS tells.
func mismatchError(g Environment, m ClusterRef, node NodeInstance, tagged, found []awsadmin.Instance) error {
	other := ""
	for _, i := range found {
		other = cmp.Or(other, i.Tags[tagKopsCluster])
	}
	advice := "the account has neither that instance nor any of " + m.Cluster +
		": choose other credentials with AWS_PROFILE, or another cluster with --context"
	switch {
	case other != "":
		advice = fmt.Sprintf("that instance is tagged as part of %s: if you mean that cluster, set --cluster %s; "+
			"otherwise choose another context with --context", other, other)
	case len(found) > 0:
		advice = fmt.Sprintf("that instance has no tag %s: kops update cluster adds it", tagKopsCluster)
	case len(tagged) > 0:
		advice = "the account has other instances of a cluster of that name: choose another context with --context"
	}
	return fmt.Errorf("nothing was changed: kubeconfig and AWS credentials belong to different clusters: "+
		"context %s is %s, where node %s is instance %s; the credentials of %s are for account %s and region %s: %s",
		m.Context, m.Cluster, node.Node, node.ID, g.Caller, g.Account, g.Region, advice)
}

// NodeRoles returns the roles of the cluster's workers, with their paths: of the instances that have a node and kOps' tag
// of a worker. It omits the roles of the control plane: whoever can pass one of them to an instance controls the
// cluster. The labels of a node count too, since the user can write the tags of instances.
func NodeRoles(ctx context.Context, aws interface {
	RolesOfProfile(ctx context.Context, profile string) ([]string, error)
}, nodes []NodeInstance, instances []awsadmin.Instance) (roles []string, err error) {
	profiles := map[string]bool{} // whether they are of workers alone
	for _, i := range instances {
		n := slices.IndexFunc(nodes, func(n NodeInstance) bool { return n.ID == i.ID })
		worker, known := profiles[i.Profile]
		switch {
		case i.Ended || i.Profile == "":
		case isControlPlane(i) || n >= 0 && nodes[n].ControlPlane:
			profiles[i.Profile] = false
		case n >= 0 && i.Tags["k8s.io/role/node"] == "1":
			profiles[i.Profile] = worker || !known
		}
	}
	var others []string
	for _, profile := range slices.Sorted(maps.Keys(profiles)) {
		names, err := aws.RolesOfProfile(ctx, profile)
		switch {
		case err != nil && !errors.Is(err, awsadmin.ErrNotFound):
			return nil, err
		case profiles[profile]:
			roles = append(roles, names...)
		default:
			others = append(others, names...)
		}
	}
	roles = slices.DeleteFunc(roles, func(r string) bool {
		return slices.Contains(others, r) || strings.HasPrefix(r, "cast-kops/") // a user has created it, and may pass it
	})
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

// isControlPlane reports whether an instance has kOps' tag of the control plane, an API server or a bastion.
func isControlPlane(i awsadmin.Instance) bool {
	return slices.ContainsFunc([]string{"control-plane", "master", "apiserver", "bastion"}, func(role string) bool {
		_, has := i.Tags["k8s.io/role/"+role]
		return has
	})
}

// Networks is what CheckVPC calls.
type Networks interface {
	Subnets(ctx context.Context, vpc string) ([]awsadmin.Subnet, error)
	SecurityGroups(ctx context.Context, vpc string) ([]string, error)
}

// CheckVPC refuses subnets and security groups outside the cluster's VPC: from there the function could not reach the
// API server, and Lambda reports it only when it creates the function.
func CheckVPC(ctx context.Context, aws Networks, g Environment, subnets, groups []string) error {
	if len(subnets) == 0 && len(groups) == 0 {
		return nil
	}
	all, err := aws.Subnets(ctx, g.VPC)
	if err != nil {
		return err
	}
	var subnetIDs []string
	for _, s := range all {
		subnetIDs = append(subnetIDs, s.ID)
	}
	groupIDs, err := aws.SecurityGroups(ctx, g.VPC)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range subnets {
		if !slices.Contains(subnetIDs, id) {
			errs = append(errs, fmt.Errorf("subnet %s is not in the cluster's VPC %s: use %s", id, g.VPC, joinAnd(subnetIDs)))
		}
	}
	for _, id := range groups {
		if !slices.Contains(groupIDs, id) {
			errs = append(errs, fmt.Errorf("security group %s is not in the cluster's VPC %s", id, g.VPC))
		}
	}
	return errors.Join(errs...)
}
