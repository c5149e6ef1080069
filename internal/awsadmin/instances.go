package awsadmin

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Instance is what EC2 tells of one of a cluster's machines.
type Instance struct {
	ID, VPC string
	Tags    map[string]string
	Profile string // the name of its instance profile; empty if it has none
	Ended   bool   // or about to
	Spot    bool
}

// idsAtOnce is how many values EC2 takes in a filter.
const idsAtOnce = 200

// Tagged are the instances with a tag.
func (a *Account) Tagged(ctx context.Context, key, value string) ([]Instance, error) {
	return a.instances(ctx, "tag:"+key, value)
}

// Instances are those of the ids that there are in this account and region.
func (a *Account) Instances(ctx context.Context, ids []string) (all []Instance, err error) {
	for some := range slices.Chunk(ids, idsAtOnce) {
		found, err := a.instances(ctx, "instance-id", some...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (a *Account) instances(ctx context.Context, filter string, values ...string) (all []Instance, err error) {
	in := &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: &filter, Values: values}}, MaxResults: aws.Int32(1000)}
	_, err = every(ctx, ec2.NewDescribeInstancesPaginator(a.ec2, in),
		func(p *ec2.DescribeInstancesOutput) []types.Reservation { return p.Reservations },
		func(r types.Reservation) any {
			for _, i := range r.Instances {
				all = append(all, instance(i))
			}
			return nil
		})
	return all, translate("looking for the cluster's instances in EC2", "", err)
}

func instance(i types.Instance) Instance {
	out := Instance{ID: aws.ToString(i.InstanceId), VPC: aws.ToString(i.VpcId),
		Tags: mapOf(i.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value }),
		Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot}
	if p := i.IamInstanceProfile; p != nil {
		out.Profile = path.Base(aws.ToString(p.Arn))
	}
	if s := i.State; s != nil {
		out.Ended = strings.HasPrefix(string(s.Name), "terminated") || strings.HasPrefix(string(s.Name), "shutting")
	}
	return out
}
