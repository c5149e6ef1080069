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
	Spot    bool
}

// Subnet is a subnet of a VPC.
type Subnet struct {
	ID, Zone string
	Private  bool // by kOps' tag
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
			return Subnet{ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone),
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
