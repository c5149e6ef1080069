package awsadmin

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Instance is an EC2 instance of a cluster.
type Instance struct {
	ID, VPC string
	Tags    map[string]string
	Profile string // name of the instance profile; may be empty
	Ended   bool   // terminated or shutting down
	Running bool
	Spot    bool
}

// Subnet is a subnet of a VPC.
type Subnet struct {
	ID, Zone string
	CIDR     string
	Private  bool // by kOps' tag
}

// RouteTable is a route table of a VPC.
type RouteTable struct {
	Subnets []string // with an association
	Main    bool     // of all other subnets
	Routes  []Route
}

// Route is an IPv4 route out of the VPC.
type Route struct {
	To     string // a CIDR block or a prefix list
	Via    string // the ID of a gateway, an interface or another target
	Broken bool   // the target no longer exists
}

// Endpoint is an interface endpoint of a VPC.
type Endpoint struct {
	ID, Service string // such as com.amazonaws.eu-west-1.ec2
	Available   bool
	PrivateDNS  bool
	Groups      []string // security groups
}

// maxFilterValues is EC2's limit.
const maxFilterValues = 200

// Tagged returns the instances with a tag.
func (a *Account) Tagged(ctx context.Context, key, value string) ([]Instance, error) {
	return a.instancesBy(ctx, "tag:"+key, value)
}

// Instances returns those of the instances that exist in this account and region.
func (a *Account) Instances(ctx context.Context, ids []string) (all []Instance, err error) {
	for some := range slices.Chunk(ids, maxFilterValues) {
		found, err := a.instancesBy(ctx, "instance-id", some...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (a *Account) instancesBy(ctx context.Context, filter string, values ...string) ([]Instance, error) {
	reservations, err := every(ctx, "", ec2.NewDescribeInstancesPaginator(a.ec2,
		&ec2.DescribeInstancesInput{Filters: filters(filter, values...), MaxResults: aws.Int32(1000)}),
		func(p *ec2.DescribeInstancesOutput) []types.Reservation { return p.Reservations },
		func(r types.Reservation) []types.Instance { return r.Instances })
	var all []Instance
	for _, i := range slices.Concat(reservations...) {
		one := Instance{ID: aws.ToString(i.InstanceId), VPC: aws.ToString(i.VpcId),
			Tags: mapOf(i.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value }),
			Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot}
		if p := i.IamInstanceProfile; p != nil {
			one.Profile = path.Base(aws.ToString(p.Arn))
		}
		if s := i.State; s != nil {
			one.Ended = strings.HasPrefix(string(s.Name), "terminated") || strings.HasPrefix(string(s.Name), "shutting")
			one.Running = s.Name == types.InstanceStateNameRunning
		}
		all = append(all, one)
	}
	return all, err
}

func filters(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: &name, Values: values}}
}

// Subnets returns the subnets of a VPC, ordered by zone.
func (a *Account) Subnets(ctx context.Context, vpc string) ([]Subnet, error) {
	all, err := every(ctx, "", ec2.NewDescribeSubnetsPaginator(a.ec2,
		&ec2.DescribeSubnetsInput{Filters: filters("vpc-id", vpc)}),
		func(p *ec2.DescribeSubnetsOutput) []types.Subnet { return p.Subnets },
		func(s types.Subnet) Subnet {
			kind := mapOf(s.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value })["SubnetType"]
			return Subnet{ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone), CIDR: aws.ToString(s.CidrBlock),
				Private: kind == "Private" || kind == "DualStack"}
		})
	slices.SortFunc(all, func(a, b Subnet) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.ID, b.ID)) })
	return all, err
}

// SecurityGroups returns the IDs of a VPC's security groups.
func (a *Account) SecurityGroups(ctx context.Context, vpc string) ([]string, error) {
	return every(ctx, "", ec2.NewDescribeSecurityGroupsPaginator(a.ec2,
		&ec2.DescribeSecurityGroupsInput{Filters: filters("vpc-id", vpc)}),
		func(p *ec2.DescribeSecurityGroupsOutput) []types.SecurityGroup { return p.SecurityGroups },
		func(g types.SecurityGroup) string { return aws.ToString(g.GroupId) })
}

// RouteTables returns the route tables of a VPC.
func (a *Account) RouteTables(ctx context.Context, vpc string) ([]RouteTable, error) {
	return every(ctx, "", ec2.NewDescribeRouteTablesPaginator(a.ec2,
		&ec2.DescribeRouteTablesInput{Filters: filters("vpc-id", vpc)}),
		func(p *ec2.DescribeRouteTablesOutput) []types.RouteTable { return p.RouteTables },
		func(t types.RouteTable) (table RouteTable) {
			for _, a := range t.Associations {
				table.Main = table.Main || aws.ToBool(a.Main)
				if a.SubnetId != nil {
					table.Subnets = append(table.Subnets, *a.SubnetId)
				}
			}
			for _, r := range t.Routes {
				route := Route{To: aws.ToString(cmp.Or(r.DestinationCidrBlock, r.DestinationPrefixListId)),
					Via: aws.ToString(cmp.Or(r.NatGatewayId, r.TransitGatewayId, r.NetworkInterfaceId, r.InstanceId,
						r.VpcPeeringConnectionId, r.LocalGatewayId, r.CarrierGatewayId, r.CoreNetworkArn, r.GatewayId)),
					Broken: r.State == types.RouteStateBlackhole}
				if route.To != "" && route.Via != "local" {
					table.Routes = append(table.Routes, route)
				}
			}
			return table
		})
}

// Endpoints returns the interface endpoints of a VPC.
func (a *Account) Endpoints(ctx context.Context, vpc string) ([]Endpoint, error) {
	in := &ec2.DescribeVpcEndpointsInput{Filters: append(filters("vpc-id", vpc), filters("vpc-endpoint-type", "Interface")...)}
	return every(ctx, "", ec2.NewDescribeVpcEndpointsPaginator(a.ec2, in),
		func(p *ec2.DescribeVpcEndpointsOutput) []types.VpcEndpoint { return p.VpcEndpoints },
		func(e types.VpcEndpoint) Endpoint {
			endpoint := Endpoint{ID: aws.ToString(e.VpcEndpointId), Service: aws.ToString(e.ServiceName),
				Available: strings.EqualFold(string(e.State), "available"), PrivateDNS: aws.ToBool(e.PrivateDnsEnabled)}
			for _, g := range e.Groups {
				endpoint.Groups = append(endpoint.Groups, aws.ToString(g.GroupId))
			}
			return endpoint
		})
}

// HTTPSSources returns who may connect to port 443 of each security group of a VPC: groups, CIDR blocks and prefix
// lists.
func (a *Account) HTTPSSources(ctx context.Context, vpc string) (map[string][]string, error) {
	groups, err := every(ctx, "", ec2.NewDescribeSecurityGroupsPaginator(a.ec2,
		&ec2.DescribeSecurityGroupsInput{Filters: filters("vpc-id", vpc)}),
		func(p *ec2.DescribeSecurityGroupsOutput) []types.SecurityGroup { return p.SecurityGroups },
		itself)
	sources := map[string][]string{}
	for _, g := range groups {
		id := aws.ToString(g.GroupId)
		for _, p := range g.IpPermissions {
			protocol := aws.ToString(p.IpProtocol)
			if protocol != "-1" && (protocol != "tcp" || aws.ToInt32(p.FromPort) > 443 || aws.ToInt32(p.ToPort) < 443) {
				continue
			}
			for _, pair := range p.UserIdGroupPairs {
				sources[id] = append(sources[id], aws.ToString(pair.GroupId))
			}
			for _, r := range p.IpRanges {
				sources[id] = append(sources[id], aws.ToString(r.CidrIp))
			}
			for _, l := range p.PrefixListIds {
				sources[id] = append(sources[id], aws.ToString(l.PrefixListId))
			}
		}
	}
	return sources, err
}
