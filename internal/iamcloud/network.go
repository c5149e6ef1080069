package iamcloud

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
	for pages := ec2.NewDescribeSubnetsPaginator(a.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeSubnets", "listing the subnets of "+vpc, "", err)
		}
		for _, s := range page.Subnets {
			one := Subnet{ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone)}
			for _, t := range s.Tags {
				kind := aws.ToString(t.Value)
				one.Private = one.Private || aws.ToString(t.Key) == "SubnetType" && (kind == "Private" || kind == "DualStack")
			}
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b Subnet) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// SecurityGroups are the ids of a VPC's.
func (a *Account) SecurityGroups(ctx context.Context, vpc string) (ids []string, err error) {
	in := &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{vpc}}}}
	for pages := ec2.NewDescribeSecurityGroupsPaginator(a.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeSecurityGroups", "listing the security groups of "+vpc, "", err)
		}
		for _, g := range page.SecurityGroups {
			ids = append(ids, aws.ToString(g.GroupId))
		}
	}
	return ids, nil
}
