package onboard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

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
	switch profile {
	case "closed":
		return nil, awsadmin.ErrDenied
	case "path":
		return []string{"teams/a/role-of-path"}, nil
	case "second":
		return []string{"role-of-masters"}, nil
	case "made":
		return []string{"cast-kops/prod-example-com-7405b0253a21/cast-node-a"}, nil
	}
	return []string{"role-of-" + profile}, nil
}

func of(cluster, id, vpc string) awsadmin.Instance {
	return awsadmin.Instance{ID: id, VPC: vpc, Tags: map[string]string{"KubernetesCluster": cluster}}
}

func TestVerifyCluster(t *testing.T) {
	const prod, dev = "prod.example.com", "dev.example.com"
	nodes := []NodeInstance{{Node: "n1", ID: "i-00000001", Region: "eu-west-1"}, {Node: "n2", ID: "i-00000002", Region: "eu-west-1"}}
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
	in := func(region string) NodeInstance { return NodeInstance{Node: "n", ID: "i-00000001", Region: region} }
	m := ClusterRef{Cluster: "prod.example.com", Context: "ctx"}
	for name, c := range map[string]struct {
		nodes     []NodeInstance
		said      string
		want, err string
	}{
		"no flag":         {[]NodeInstance{in("eu-west-1"), in("eu-west-1")}, "", "eu-west-1", ""},
		"the same flag":   {[]NodeInstance{in("eu-west-1")}, "eu-west-1", "eu-west-1", ""},
		"another flag":    {[]NodeInstance{in("eu-west-1")}, "us-east-1", "", "the nodes of the kubeconfig's context ctx are in eu-west-1"},
		"several regions": {[]NodeInstance{in("eu-west-1"), in("us-east-1")}, "", "", "several regions: eu-west-1, us-east-1: set --region"},
		"several regions, and the flag names one": {[]NodeInstance{in("eu-west-1"), in("us-east-1")}, "us-east-1", "us-east-1", ""},
		"several regions, and another flag":       {[]NodeInstance{in("eu-west-1"), in("us-east-1")}, "us-west-2", "", "are in eu-west-1, us-east-1, and --region is us-west-2"},
		"some nodes without a region":             {[]NodeInstance{in(""), in("eu-west-1")}, "", "eu-west-1", ""},
		"no region":                               {[]NodeInstance{in("")}, "", "", "set --region"},
		"no region, and a flag":                   {[]NodeInstance{in("")}, "eu-west-1", "eu-west-1", ""},
		"no nodes":                                {nil, "eu-west-1", "", "no node's spec.providerID names an EC2 instance"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := RegionOf(c.nodes, c.said, m)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestNodeInstances: the labels of the control plane, of API servers and of instance groups are recognized.
func TestNodeInstances(t *testing.T) {
	const list = `{"kind": "NodeList", "apiVersion": "v1", "items": [
		{"metadata": {"name": "a", "labels": {"kops.k8s.io/instancegroup": "nodes"}}, "spec": {"providerID": "aws:///eu-west-1a/i-0000000a"},
			"status": {"nodeInfo": {"osImage": "Ubuntu 24.04 LTS"}, "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}},
		{"metadata": {"name": "b", "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"providerID": "aws:///eu-west-1a/i-0000000b"},
			"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
		{"metadata": {"name": "c", "labels": {"node-role.kubernetes.io/master": ""}}, "spec": {"providerID": "aws:///eu-west-1a/i-0000000c"}},
		{"metadata": {"name": "d", "labels": {"node-role.kubernetes.io/api-server": ""}}, "spec": {"providerID": "aws:///eu-west-1a/i-0000000d"}},
		{"metadata": {"name": "e"}, "spec": {"providerID": "kind://e"}}]}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, list)
	}))
	defer server.Close()
	client, err := dynamic.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	got, err := NodeInstances(t.Context(), client)
	want := []NodeInstance{{"a", "i-0000000a", "eu-west-1", false, "nodes", "Ubuntu 24.04 LTS", true}, {"b", "i-0000000b", "eu-west-1", true, "", "", false},
		{"c", "i-0000000c", "eu-west-1", true, "", "", false}, {"d", "i-0000000d", "eu-west-1", true, "", "", false}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNodeRoles(t *testing.T) {
	const worker, master = "k8s.io/role/node", "k8s.io/role/control-plane"
	roles := func(profile string) []string { return []string{"role-of-" + profile} }
	for name, c := range map[string]struct {
		profile, tag string
		node         bool // it is one
		controlPlane bool // by its label
		ended        bool
		beside       string // the tag of another instance with the same profile
		want         []string
	}{
		"a worker":                                {profile: "nodes", tag: worker, node: true, want: roles("nodes")},
		"a worker with a path":                    {profile: "path", tag: worker, node: true, want: []string{"teams/a/role-of-path"}},
		"two workers":                             {profile: "nodes", tag: worker, node: true, beside: worker, want: roles("nodes")},
		"no node":                                 {profile: "nodes", tag: worker},
		"a CI runner with the cluster's tag":      {profile: "ci-runner-admin", tag: "team"},
		"a node without the tag of a worker":      {profile: "admin", tag: "team", node: true},
		"a control plane":                         {profile: "masters", tag: master, node: true, controlPlane: true},
		"a control plane whose tag was deleted":   {profile: "etcd", tag: "team", node: true, controlPlane: true},
		"a control plane with a worker's tag":     {profile: "etcd", tag: worker, node: true, controlPlane: true},
		"an API server":                           {profile: "apiservers", tag: "k8s.io/role/apiserver", node: true},
		"a bastion":                               {profile: "bastions", tag: "k8s.io/role/bastion"},
		"an old master":                           {profile: "masters", tag: "k8s.io/role/master", node: true},
		"the profile of a control plane":          {profile: "shared", tag: worker, node: true, beside: master},
		"a profile with the control plane's role": {profile: "second", tag: worker, node: true},
		"a terminated instance":                   {profile: "nodes", tag: worker, node: true, ended: true},
		"no profile":                              {tag: worker, node: true},
		"a deleted profile":                       {profile: "gone", tag: worker, node: true},
		"a role that the cluster's user has made": {profile: "made", tag: worker, node: true},
	} {
		t.Run(name, func(t *testing.T) {
			instances := []awsadmin.Instance{{ID: "i-1", Profile: c.profile, Tags: map[string]string{c.tag: "1"}, Ended: c.ended},
				{ID: "i-3", Profile: "masters", Tags: map[string]string{master: "1"}}}
			var nodes []NodeInstance
			if c.node {
				nodes = append(nodes, NodeInstance{ID: "i-1", ControlPlane: c.controlPlane})
			}
			if c.beside != "" {
				instances = append(instances, awsadmin.Instance{ID: "i-2", Profile: c.profile, Tags: map[string]string{c.beside: "1"}})
				nodes = append(nodes, NodeInstance{ID: "i-2"})
			}
			if got, err := NodeRoles(t.Context(), fakeRegion{}, nodes, instances); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	closed := []awsadmin.Instance{{ID: "i-1", Profile: "closed", Tags: map[string]string{worker: "1"}}}
	if _, err := NodeRoles(t.Context(), fakeRegion{}, []NodeInstance{{ID: "i-1"}}, closed); !errors.Is(err, awsadmin.ErrDenied) {
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
