package awsadmin

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Subnet is a subnet of a VPC.
type Subnet struct {
	ID, Zone string
	Private  bool // by kOps' tag
}

// Subnets are a VPC's, in the order of their zones.
func (a *Account) Subnets(ctx context.Context, vpc string) (all []Subnet, err error) {
	in := &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{vpc}}}}
	all, err = every(ctx, ec2.NewDescribeSubnetsPaginator(a.ec2, in),
		func(p *ec2.DescribeSubnetsOutput) []types.Subnet { return p.Subnets },
		func(s types.Subnet) Subnet {
			one := Subnet{ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone)}
			for _, t := range s.Tags {
				kind := aws.ToString(t.Value)
				one.Private = one.Private || aws.ToString(t.Key) == "SubnetType" && (kind == "Private" || kind == "DualStack")
			}
			return one
		})
	slices.SortFunc(all, func(a, b Subnet) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.ID, b.ID)) })
	return all, translate("listing the subnets of "+vpc, "", err)
}

// SecurityGroups are the ids of a VPC's.
func (a *Account) SecurityGroups(ctx context.Context, vpc string) (ids []string, err error) {
	in := &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{vpc}}}}
	ids, err = every(ctx, ec2.NewDescribeSecurityGroupsPaginator(a.ec2, in),
		func(p *ec2.DescribeSecurityGroupsOutput) []types.SecurityGroup { return p.SecurityGroups },
		func(g types.SecurityGroup) string { return aws.ToString(g.GroupId) })
	return ids, translate("listing the security groups of "+vpc, "", err)
}
