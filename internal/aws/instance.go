package aws

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/castai/kops-spot/internal/spot"
)

// Instance reads an instance. EC2 returns a terminated instance for about an hour.
func (c *Cloud) Instance(ctx context.Context, id string) (spot.Instance, error) {
	doing := "describing instance " + id
	out, err := attempt(ctx, c, "ec2:DescribeInstances", doing, "", c.ec2.DescribeInstances,
		&ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return spot.Instance{}, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if aws.ToString(i.InstanceId) == id {
				return instance(i), nil
			}
		}
	}
	return spot.Instance{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
}

// idsAtOnce is EC2's limit of values per filter.
const idsAtOnce = 200

// InstancesOf reads instances. It uses a filter, because EC2 rejects a list of IDs if one of them is unknown.
func (c *Cloud) InstancesOf(ctx context.Context, ids []string) (map[string]spot.Instance, error) {
	found := map[string]spot.Instance{}
	for some := range slices.Chunk(ids, idsAtOnce) {
		page, err := c.instances(ctx, fmt.Sprintf("describing %d instances", len(ids)), filter("instance-id", some...))
		if err != nil {
			return nil, err
		}
		for _, i := range page {
			found[i.ID] = i
		}
	}
	return found, nil
}

// DetachedFrom reads the instances that were detached from a group. EC2 removes the tags of a terminated instance after
// a while, but the first launch fails seconds after the detach.
func (c *Cloud) DetachedFrom(ctx context.Context, group string) ([]spot.Instance, error) {
	return c.instances(ctx, "describing instances detached from Auto Scaling group "+group, filter("tag:"+spot.TagDetached, group))
}

// instances reads all instances that pass the filters, page by page.
func (c *Cloud) instances(ctx context.Context, doing string, filters []types.Filter) (found []spot.Instance, err error) {
	in := &ec2.DescribeInstancesInput{Filters: filters, MaxResults: aws.Int32(idsAtOnce)}
	for {
		out, err := attempt(ctx, c, "ec2:DescribeInstances", doing, "", c.ec2.DescribeInstances, in)
		if err != nil {
			return nil, err
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				found = append(found, instance(i))
			}
		}
		// A page may be empty and not be the last.
		if aws.ToString(out.NextToken) == "" {
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

func filter(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: aws.String(name), Values: values}}
}

func instance(i types.Instance) spot.Instance {
	in := spot.Instance{
		ID:             aws.ToString(i.InstanceId),
		PrivateDNSName: aws.ToString(i.PrivateDnsName),
		PrivateIP:      aws.ToString(i.PrivateIpAddress),
		Type:           string(i.InstanceType),
		Spot:           i.InstanceLifecycle == types.InstanceLifecycleTypeSpot,
		Hibernates:     i.HibernationOptions != nil && aws.ToBool(i.HibernationOptions.Configured),
		Tags:           map[string]string{},
	}
	if i.Placement != nil {
		in.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.State != nil {
		in.State = string(i.State.Name)
	}
	for _, t := range i.Tags {
		in.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return in
}

// Tag adds tags to an instance.
func (c *Cloud) Tag(ctx context.Context, id string, tags map[string]string) error {
	in := &ec2.CreateTagsInput{Resources: []string{id}}
	for k, v := range tags {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	_, err := attempt(ctx, c, "ec2:CreateTags", "tagging instance "+id, "instance "+id, c.ec2.CreateTags, in)
	return err
}

// fewestInstances is the smallest page size of DescribeInstances.
const fewestInstances = 5

// Readable checks with minimal requests that EC2 and Auto Scaling can be read.
func (c *Cloud) Readable(ctx context.Context, cluster string) error {
	_, instances := attempt(ctx, c, "ec2:DescribeInstances", "describing instances of cluster "+cluster, "",
		c.ec2.DescribeInstances, &ec2.DescribeInstancesInput{Filters: filter("tag:"+spot.TagCluster, cluster), MaxResults: aws.Int32(fewestInstances)})
	_, groups := attempt(ctx, c, "autoscaling:DescribeAutoScalingGroups", "describing Auto Scaling groups", "",
		c.scale.DescribeAutoScalingGroups, &autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(1)})
	switch {
	case instances == nil:
		return groups
	case groups == nil:
		return instances
	}
	return fmt.Errorf("%w; %w", instances, groups)
}
