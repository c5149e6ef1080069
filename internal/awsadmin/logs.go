package awsadmin

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// LogGroup is a log group of CloudWatch Logs.
type LogGroup struct {
	Name  string
	Bytes int64     // stored
	Last  time.Time // event; zero for none

	Created   time.Time
	Retention time.Duration // zero for ever
}

// LogGroup reads a log group; nil if there is none.
func (a *Account) LogGroup(ctx context.Context, name string) (*LogGroup, error) {
	out, err := a.logs.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &name})
	if err != nil {
		return nil, translate("log group "+name, err)
	}
	for _, g := range out.LogGroups { // in the order of their names
		if aws.ToString(g.LogGroupName) != name {
			continue
		}
		streams, err := a.logs.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &name,
			OrderBy: types.OrderByLastEventTime, Descending: aws.Bool(true), Limit: aws.Int32(1)})
		if err != nil {
			return nil, unlessNone(translate("log group "+name, err))
		}
		group := &LogGroup{Name: name, Bytes: aws.ToInt64(g.StoredBytes),
			Created:   time.UnixMilli(aws.ToInt64(g.CreationTime)),
			Retention: time.Duration(aws.ToInt32(g.RetentionInDays)) * 24 * time.Hour}
		if len(streams.LogStreams) > 0 && streams.LogStreams[0].LastEventTimestamp != nil {
			group.Last = time.UnixMilli(*streams.LogStreams[0].LastEventTimestamp)
		}
		return group, nil
	}
	return nil, nil
}

func DeleteLogGroup(name string) Call {
	return call("log group "+name, (*cloudwatchlogs.Client).DeleteLogGroup,
		&cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &name})
}
