package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"
)

// Stack is a CloudFormation stack.
type Stack struct {
	Name, ID        string
	Status          string // as CloudFormation writes it: CREATE_COMPLETE
	Reason          string
	Parameters      map[string]string
	Created, Change time.Time // Change is of its last update; zero if there was none
}

// InProgress reports whether CloudFormation is at work on the stack.
func (s Stack) InProgress() bool {
	return strings.HasSuffix(s.Status, "_IN_PROGRESS") && s.Status != string(types.StackStatusReviewInProgress)
}

// InReview reports whether nobody has executed its first change set: it has no resources yet.
func (s Stack) InReview() bool { return s.Status == string(types.StackStatusReviewInProgress) }

// MustBeDeleted reports whether CloudFormation lets nothing be done with the stack but to delete it: its creation has failed.
func (s Stack) MustBeDeleted() bool {
	return slices.Contains([]types.StackStatus{types.StackStatusRollbackComplete, types.StackStatusRollbackFailed, types.StackStatusCreateFailed,
		types.StackStatusDeleteFailed}, types.StackStatus(s.Status))
}

// RollbackFailed reports whether a person has to bring the stack back to where it was before its last update.
func (s Stack) RollbackFailed() bool {
	return s.Status == string(types.StackStatusUpdateRollbackFailed)
}

// Stack reads a stack by its name or id; nil if there is none. One that is deleted is found by its id only.
func (a *Account) Stack(ctx context.Context, name string) (*Stack, error) {
	out, err := a.stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		var api smithy.APIError
		if errors.As(err, &api) && api.ErrorCode() == "ValidationError" && strings.Contains(api.ErrorMessage(), "does not exist") {
			return nil, nil
		}
		return nil, translate("looking for stack "+name, "stack "+name, err)
	}
	if len(out.Stacks) == 0 {
		return nil, nil
	}
	one := out.Stacks[0]
	return &Stack{Name: aws.ToString(one.StackName), ID: aws.ToString(one.StackId), Status: string(one.StackStatus),
		Reason: aws.ToString(one.StackStatusReason),
		Parameters: mapOf(one.Parameters,
			func(p types.Parameter) (key, value *string) { return p.ParameterKey, p.ParameterValue }),
		Created: aws.ToTime(one.CreationTime), Change: aws.ToTime(one.LastUpdatedTime)}, nil
}

// StackResource is something that a stack has.
type StackResource struct {
	LogicalID, Type string
	Name            string // as its service calls it; empty if it is not made yet
}

// StackResources are what a stack has.
func (a *Account) StackResources(ctx context.Context, stack string) (all []StackResource, err error) {
	summaries, err := every(ctx, cloudformation.NewListStackResourcesPaginator(a.stacks,
		&cloudformation.ListStackResourcesInput{StackName: &stack}),
		func(p *cloudformation.ListStackResourcesOutput) []types.StackResourceSummary {
			return p.StackResourceSummaries
		},
		func(r types.StackResourceSummary) types.StackResourceSummary { return r })
	for _, r := range summaries {
		if r.ResourceStatus != types.ResourceStatusDeleteComplete && aws.ToString(r.LogicalResourceId) != "" {
			all = append(all, StackResource{aws.ToString(r.LogicalResourceId), aws.ToString(r.ResourceType),
				aws.ToString(r.PhysicalResourceId)})
		}
	}
	return all, translate("listing what stack "+stack+" has", "stack "+stack, err)
}

// DeleteStack has CloudFormation take a stack and all that it has away. It returns when CloudFormation has begun.
func (a *Account) DeleteStack(ctx context.Context, s Stack) error {
	_, err := a.stacks.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &s.ID})
	return translate("deleting stack "+s.Name, "stack "+s.Name, err)
}

// StackEvent is one step of CloudFormation's.
type StackEvent struct{ LogicalID, Type, Status, Reason string }

// Ended reports whether the step is over.
func (e StackEvent) Ended() bool { return !strings.HasSuffix(e.Status, "_IN_PROGRESS") }

// Failed reports whether the step is why the others are taken back, and not one that was broken off for its sake.
func (e StackEvent) Failed() bool {
	return strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(strings.ToLower(e.Reason), "cancelled")
}

// stackPause is between two looks at a stack.
const stackPause = 2 * time.Second

// EventID is the last step that CloudFormation had made on a stack at some moment.
type EventID string

// LastEventID is the last step that CloudFormation has made on a stack.
func (a *Account) LastEventID(ctx context.Context, s Stack) (EventID, error) {
	out, err := a.stacks.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: &s.ID})
	if err != nil {
		return "", translate("following stack "+s.Name, "stack "+s.Name, err)
	}
	if len(out.StackEvents) == 0 {
		return "", nil
	}
	return EventID(aws.ToString(out.StackEvents[0].EventId)), nil
}

// beginsWithin is how long what CloudFormation was told to do may take to begin: until then the stack looks as before.
const beginsWithin = time.Minute

// Follow waits until CloudFormation has done what it was told after a step, and says each step since; without one, until it is
// no more at work on the stack. The stack that it returns may have failed.
func (a *Account) Follow(ctx context.Context, s Stack, after EventID, say func(StackEvent)) (Stack, error) {
	seen, ended := map[EventID]bool{after: true}, after == ""
	for began := time.Now(); ; {
		now, err := a.Stack(ctx, s.ID)
		if err != nil {
			return s, err
		}
		if after != "" {
			fresh, err := a.newEvents(ctx, s, seen)
			if err != nil {
				return s, err
			}
			for _, e := range fresh {
				ended = ended || e.LogicalID == s.Name && e.Ended()
				say(e)
			}
		}
		switch {
		case now == nil: // it is deleted, and forgotten
			s.Status = string(types.StackStatusDeleteComplete)
			return s, nil
		case !now.InProgress() && (ended || time.Since(began) > beginsWithin):
			return *now, nil
		}
		if err := pause(ctx, stackPause); err != nil {
			return *now, fmt.Errorf("following stack %s, at which CloudFormation works on: %w", s.Name, err)
		}
	}
}

// newEvents are the events that were not seen before, the oldest first.
func (a *Account) newEvents(ctx context.Context, s Stack, seen map[EventID]bool) (fresh []StackEvent, err error) {
	pages := cloudformation.NewDescribeStackEventsPaginator(a.stacks, &cloudformation.DescribeStackEventsInput{StackName: &s.ID})
read:
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			var api smithy.APIError
			if errors.As(err, &api) && api.ErrorCode() == "ValidationError" { // a stack that is gone has none
				break
			}
			return nil, translate("following stack "+s.Name, "stack "+s.Name, err)
		}
		for _, e := range page.StackEvents {
			id := EventID(aws.ToString(e.EventId))
			if seen[id] {
				break read // they come with the newest first
			}
			seen[id] = true
			fresh = append(fresh, StackEvent{aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceType), string(e.ResourceStatus),
				firstLine(aws.ToString(e.ResourceStatusReason))})
		}
	}
	slices.Reverse(fresh)
	return fresh, nil
}
