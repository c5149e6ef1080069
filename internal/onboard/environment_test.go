package onboard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

// fakeRegion is a region of an account with these instances.
type fakeRegion []awsadmin.Instance

func (fakeRegion) Region() string { return "eu-west-1" }

func (fakeRegion) Caller(context.Context) (awsadmin.Caller, error) {
	return awsadmin.Caller{Partition: "aws-cn", Account: "123456789012", ARN: "arn:aws-cn:iam::123456789012:user/operator"}, nil
}

func (r fakeRegion) Tagged(_ context.Context, key, value string) (found []awsadmin.Instance, err error) {
	for _, i := range r {
		if i.Tags[key] == value {
			found = append(found, i)
		}
	}
	return found, nil
}

func (r fakeRegion) Instances(_ context.Context, ids []string) (found []awsadmin.Instance, err error) {
	for _, i := range r {
		if slices.Contains(ids, i.ID) {
			found = append(found, i)
		}
	}
	return found, nil
}

func (fakeRegion) RolesOfProfile(_ context.Context, profile string) ([]string, error) {
	if profile == "gone" {
		return nil, awsadmin.ErrNotFound
	}
	if profile == "closed" {
		return nil, awsadmin.ErrDenied
	}
	return []string{"role-of-" + profile}, nil
}

func of(cluster, id, vpc string) awsadmin.Instance {
	return awsadmin.Instance{ID: id, VPC: vpc, Tags: map[string]string{"KubernetesCluster": cluster}}
}

func TestVerifyCluster(t *testing.T) {
	const prod, dev = "prod.example.com", "dev.example.com"
	nodes := []NodeInstance{{"n1", "i-00000001", "eu-west-1"}, {"n2", "i-00000002", "eu-west-1"}}
	for name, c := range map[string]struct {
		has  fakeRegion
		want string // in the error; empty for none
	}{
		"all nodes exist":                             {fakeRegion{of(prod, "i-00000001", "v"), of(prod, "i-00000002", "v")}, ""},
		"a node's instance is terminated":             {fakeRegion{of(prod, "i-00000002", "v")}, ""},
		"another cluster in the account":              {fakeRegion{of(prod, "i-00000002", "v"), of(dev, "i-0000000a", "w")}, ""},
		"the account has only another cluster":        {fakeRegion{of(dev, "i-0000000a", "v")}, "choose other credentials with AWS_PROFILE"},
		"the account has another cluster of the name": {fakeRegion{of(prod, "i-0000000a", "v")}, "the account has other instances of a cluster of that name"},
		"the nodes belong to another cluster":         {fakeRegion{of(dev, "i-00000001", "v")}, "set --cluster " + dev},
		"the nodes have no tag":                       {fakeRegion{{ID: "i-00000001"}}, "no tag KubernetesCluster"},
		"the nodes are in two VPCs":                   {fakeRegion{of(prod, "i-00000001", "v"), of(prod, "i-00000002", "w")}, "several VPCs: v, w"},
	} {
		t.Run(name, func(t *testing.T) {
			g, _, err := VerifyCluster(t.Context(), c.has, nodes, ClusterRef{Cluster: prod, Context: "ctx"})
			if c.want == "" {
				if err != nil || g.VPC != "v" || g.Account != "123456789012" || g.Partition != "aws-cn" || g.Region != "eu-west-1" || g.Cluster != prod {
					t.Errorf("%+v, %v", g, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestRegionOf(t *testing.T) {
	in := func(region string) NodeInstance { return NodeInstance{"n", "i-00000001", region} }
	m := ClusterRef{Cluster: "prod.example.com", Context: "ctx"}
	for name, c := range map[string]struct {
		nodes     []NodeInstance
		said      string
		want, err string
	}{
		"no flag":         {[]NodeInstance{in("eu-west-1"), in("eu-west-1")}, "", "eu-west-1", ""},
		"the same flag":   {[]NodeInstance{in("eu-west-1")}, "eu-west-1", "eu-west-1", ""},
		"another flag":    {[]NodeInstance{in("eu-west-1")}, "us-east-1", "", "the nodes of the kubeconfig's context ctx are in eu-west-1"},
		"several regions": {[]NodeInstance{in("eu-west-1"), in("us-east-1")}, "", "", "several regions: eu-west-1, us-east-1"},
		"no nodes":        {nil, "eu-west-1", "", "no node's spec.providerID names an EC2 instance"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := RegionOf(c.nodes, c.said, m)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestNodeRoles(t *testing.T) {
	with := func(profile, role string) awsadmin.Instance {
		return awsadmin.Instance{ID: "i", Profile: profile, Tags: map[string]string{"k8s.io/role/" + role: "1"}}
	}
	ended := with("old", "node")
	ended.Ended = true
	got, err := NodeRoles(t.Context(), fakeRegion{}, []awsadmin.Instance{with("nodes", "node"), with("nodes", "node"), with("spot", "node"), with("masters", "control-plane"),
		with("apiservers", "apiserver"), with("bastions", "bastion"), with("old-masters", "master"), with("shared", "node"), with("shared", "master"), with("", "node"), with("gone", "node"), ended})
	if want := []string{"role-of-nodes", "role-of-spot"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := NodeRoles(t.Context(), fakeRegion{}, []awsadmin.Instance{with("closed", "node")}); !errors.Is(err, awsadmin.ErrDenied) {
		t.Error(err)
	}
}

type network struct{ asked int }

func (n *network) Subnets(_ context.Context, vpc string) ([]awsadmin.Subnet, error) {
	n.asked++
	return []awsadmin.Subnet{{ID: "subnet-1"}, {ID: "subnet-2"}}, nil
}

func (n *network) SecurityGroups(context.Context, string) ([]string, error) {
	return []string{"sg-1"}, nil
}

func TestCheckVPC(t *testing.T) {
	g := Environment{Values: iam.Values{VPC: "vpc-1"}}
	n := &network{}
	if err := CheckVPC(t.Context(), n, g, nil, nil); err != nil || n.asked > 0 {
		t.Errorf("without a VPC: %v, %d calls", err, n.asked)
	}
	if err := CheckVPC(t.Context(), n, g, []string{"subnet-2"}, []string{"sg-1"}); err != nil {
		t.Error(err)
	}
	err := CheckVPC(t.Context(), n, g, []string{"subnet-2", "subnet-3"}, []string{"sg-2"})
	if err == nil || !strings.Contains(err.Error(), "subnet subnet-3 is not in the cluster's VPC vpc-1: use subnet-1 and subnet-2") ||
		!strings.Contains(err.Error(), "security group sg-2 is not in the cluster's VPC vpc-1") {
		t.Error(err)
	}
}
