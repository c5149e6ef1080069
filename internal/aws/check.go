package aws

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/castai/kops-spot/internal/spot"
)

// fewestInstances is the smallest page size of DescribeInstances.
const fewestInstances = 5

// Readable checks with minimal requests that EC2 and Auto Scaling can be read.
func (c *Cloud) Readable(ctx context.Context, cluster string) error {
	_, instances := attempt(ctx, c, "ec2:DescribeInstances", "describing instances of cluster "+cluster, "", c.ec2.DescribeInstances,
		&ec2.DescribeInstancesInput{Filters: filter("tag:"+spot.TagCluster, cluster), MaxResults: aws.Int32(fewestInstances)})
	_, groups := attempt(ctx, c, "autoscaling:DescribeAutoScalingGroups", "describing Auto Scaling groups", "", c.scale.DescribeAutoScalingGroups,
		&autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(1)})
	switch {
	case instances == nil:
		return groups
	case groups == nil:
		return instances
	}
	return fmt.Errorf("%w; %w", instances, groups)
}
