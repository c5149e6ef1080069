package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// fakeVPC is a VPC with the subnets a and b.
type fakeVPC struct {
	tables    []awsadmin.RouteTable
	endpoints []awsadmin.Endpoint
	sources   map[string][]string
	err       error
}

func (f fakeVPC) Subnets(context.Context, string) ([]awsadmin.Subnet, error) {
	return []awsadmin.Subnet{{ID: "a", CIDR: "10.0.1.0/24"}, {ID: "b", CIDR: "10.0.2.0/24"}}, nil
}
func (f fakeVPC) RouteTables(context.Context, string) ([]awsadmin.RouteTable, error) {
	return f.tables, f.err
}
func (f fakeVPC) Endpoints(context.Context, string) ([]awsadmin.Endpoint, error) {
	return f.endpoints, nil
}
func (f fakeVPC) HTTPSSources(context.Context, string) (map[string][]string, error) {
	return f.sources, nil
}

func TestCheckNetwork(t *testing.T) {
	main := func(routes ...awsadmin.Route) []awsadmin.RouteTable {
		return []awsadmin.RouteTable{{Subnets: []string{"c"}, Routes: []awsadmin.Route{{To: "0.0.0.0/0", Via: "nat-c"}}}, {Main: true, Routes: routes}}
	}
	byDefault := func(via string) awsadmin.Route { return awsadmin.Route{To: "0.0.0.0/0", Via: via} }
	s3 := awsadmin.Route{To: "pl-s3", Via: "vpce-s3"}
	endpoints := func(change func(*awsadmin.Endpoint), services ...string) (all []awsadmin.Endpoint) {
		for _, s := range services {
			e := awsadmin.Endpoint{ID: "vpce-" + s, Service: "com.amazonaws.eu-west-1." + s, Available: true, PrivateDNS: true, Groups: []string{"sg-e"}}
			change(&e)
			all = append(all, e)
		}
		return all
	}
	good := func(*awsadmin.Endpoint) {}
	open := map[string][]string{"sg-e": {"sg-f"}}
	ec2 := endpoints(good, "ec2", "autoscaling", "events")
	const noEC2 = "aws ec2 create-vpc-endpoint --vpc-endpoint-type Interface --vpc-id vpc-1 --service-name com.amazonaws.eu-west-1.ec2 " +
		"--private-dns-enabled --subnet-ids a b --security-group-ids … --region eu-west-1"
	for name, c := range map[string]struct {
		vpc   fakeVPC
		given map[string]string
		want  change.Level   // of the first finding
		says  []string       // in its detail or advice
		more  []change.Level // of the others
	}{
		"a NAT gateway":        {vpc: fakeVPC{tables: main(byDefault("nat-1"))}, want: change.OK, says: []string{"route out of the VPC"}},
		"a transit gateway":    {vpc: fakeVPC{tables: main(s3, byDefault("tgw-1"))}, want: change.OK},
		"a firewall's gateway": {vpc: fakeVPC{tables: main(byDefault("vpce-1"))}, want: change.OK},
		"endpoints": {vpc: fakeVPC{tables: main(s3), endpoints: ec2, sources: open}, want: change.OK,
			says: []string{"the VPC has interface endpoints for ec2, autoscaling, events"}},
		"endpoints without events": {vpc: fakeVPC{tables: main(s3), endpoints: ec2[:2], sources: open}, want: change.Warn,
			says: []string{"no interface endpoint for events", "com.amazonaws.eu-west-1.events"}},
		"endpoints of a public subnet": {vpc: fakeVPC{tables: main(byDefault("igw-1")), endpoints: ec2, sources: open}, want: change.OK},
		"nothing": {vpc: fakeVPC{tables: main(s3)}, want: change.Fail, says: []string{"subnet a has no default route, and subnet b has no default route; " +
			"the VPC has no interface endpoint for ec2, autoscaling, events", "allows port 443 from sg-f", noEC2, "eu-west-1.autoscaling"}},
		"no route table": {want: change.Fail, says: []string{"subnet a has no route table"}},
		"an internet gateway": {vpc: fakeVPC{tables: main(byDefault("igw-1"))}, want: change.Fail,
			says: []string{"only the internet gateway igw-1, which needs a public address, and a function has none", noEC2}},
		"a NAT gateway that is gone": {vpc: fakeVPC{tables: main(awsadmin.Route{To: "0.0.0.0/0", Via: "nat-1", Broken: true})}, want: change.Fail,
			says: []string{"a default route to nat-1, which no longer exists"}},
		"one subnet with a NAT gateway": {vpc: fakeVPC{tables: append(main(), awsadmin.RouteTable{Subnets: []string{"a"}, Routes: []awsadmin.Route{byDefault("nat-1")}})},
			want: change.Fail, says: []string{"subnet b has no default route; the VPC"}},
		"a route to another network": {vpc: fakeVPC{tables: main(awsadmin.Route{To: "10.0.0.0/8", Via: "tgw-1"})}, want: change.Warn, says: []string{noEC2}},
		"endpoints without private DNS": {vpc: fakeVPC{tables: main(), sources: open, endpoints: endpoints(func(e *awsadmin.Endpoint) { e.PrivateDNS = false }, "ec2", "autoscaling")},
			want: change.Fail, says: []string{"ec2 with private DNS",
				"aws ec2 modify-vpc-endpoint --vpc-endpoint-id vpce-ec2 --private-dns-enabled --region eu-west-1"}},
		"endpoints that are not ready": {vpc: fakeVPC{tables: main(), sources: open, endpoints: endpoints(func(e *awsadmin.Endpoint) { e.Available = false }, "ec2", "autoscaling")},
			want: change.Fail, says: []string{noEC2}},
		"endpoints of another region": {vpc: fakeVPC{tables: main(), sources: open, endpoints: endpoints(func(e *awsadmin.Endpoint) { e.Service = "com.amazonaws.eu-west-2.ec2" }, "ec2")},
			want: change.Fail, says: []string{noEC2}},
		"closed endpoints": {vpc: fakeVPC{tables: main(), endpoints: ec2, sources: map[string][]string{"sg-e": {"sg-x", "10.0.1.0/24", "10.0.0.0/23"}}}, want: change.Fail,
			says: []string{"the security groups of the endpoint vpce-ec2 for ec2 do not allow port 443 from the function",
				"aws ec2 authorize-security-group-ingress --protocol tcp --port 443 --group-id sg-e --source-group sg-f --region eu-west-1"}, more: []change.Level{change.Fail, change.Warn}},
		"endpoints open to a part of the subnet": {vpc: fakeVPC{tables: main(), endpoints: endpoints(good, "ec2"), sources: map[string][]string{"sg-e": {"10.0.1.0/25"}}},
			given: map[string]string{"SubnetIds": "a"}, want: change.Fail, says: []string{"do not allow port 443"}, more: []change.Level{change.Fail}},
		"endpoints open to the VPC": {vpc: fakeVPC{tables: main(), endpoints: ec2, sources: map[string][]string{"sg-e": {"10.0.0.0/16"}}}, want: change.OK},
		"a secret without an endpoint": {vpc: fakeVPC{tables: main(), endpoints: ec2, sources: open}, given: map[string]string{"Login": "secretsmanager:x", "CA": "ssm:/y"},
			want: change.Fail, says: []string{"no interface endpoint for secretsmanager, ssm", "com.amazonaws.eu-west-1.secretsmanager",
				"com.amazonaws.eu-west-1.ssm"}},
		"CAST AI": {vpc: fakeVPC{tables: main(), endpoints: ec2, sources: open}, given: map[string]string{"CASTAICluster": "x", "CASTAIKey": "file:/x"},
			want: change.Fail, says: []string{"CAST AI's API has no interface endpoint", "NAT gateway, or set HttpsProxy"}},
		"a proxy": {given: map[string]string{"HttpsProxy": "http://proxy:3128,.internal", "CASTAICluster": "x"}, want: change.OK, says: []string{"through the proxy http://proxy:3128;"}},
		"no permission": {vpc: fakeVPC{err: fmt.Errorf("%w: allow ec2:DescribeRouteTables", awsadmin.ErrDenied)}, want: change.Warn,
			says: []string{"allow ec2:DescribeRouteTables", "kops-spot check tests"}},
	} {
		t.Run(name, func(t *testing.T) {
			given := map[string]string{"SubnetIds": "a, b", "SecurityGroupIds": "sg-f"}
			for k, v := range c.given {
				given[k] = v
			}
			found, err := CheckNetwork(t.Context(), c.vpc, iam.Values{VPC: "vpc-1", Region: "eu-west-1"}, given)
			if err != nil || len(found) == 0 {
				t.Fatalf("%+v, %v", found, err)
			}
			var more []change.Level
			for _, f := range found[1:] {
				more = append(more, f.Level)
			}
			f := found[0]
			if f.Name != "network" || f.Level != c.want || (f.Advice == "") != (f.Level == change.OK) || !slices.Equal(more, c.more) {
				t.Errorf("got %+v, want %s", found, c.want)
			}
			for _, text := range c.says {
				if !strings.Contains(f.Detail+"\n"+f.Advice, text) {
					t.Errorf("got %+v\nwant %q", f, text)
				}
			}
		})
	}
	if found, err := CheckNetwork(t.Context(), nil, iam.Values{}, map[string]string{"Login": "iam"}); found != nil || err != nil {
		t.Errorf("outside a VPC: %+v, %v", found, err)
	}
}
