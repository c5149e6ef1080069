package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"
)

// StackSpec is a stack as it is to be.
type StackSpec struct {
	Name, Template string
	Parameters     map[string]string
}

// ChangeSet is what CloudFormation would do to make a stack as it is wanted. It is to be executed or discarded.
type ChangeSet struct {
	Stack   Stack
	ID      string
	Empty   bool          // the stack is as it is wanted: there is nothing to execute or discard
	Changes []StackChange // of its resources
}

// StackChange is what would be done about one thing of a stack.
type StackChange struct {
	StackResource
	Action   string   // as CloudFormation writes it: Add, Modify, Remove
	Replaced bool     // another one is made in its place, or may be
	Of       []string // the properties that are changed
}

const (
	// changeSetPrefix begins the names of change sets that are ours to delete.
	changeSetPrefix = "kops-spot-"

	changeSetPause = time.Second
	changeSetLimit = 5 * time.Minute
)

// CreateChangeSet asks CloudFormation what it would do. now is the stack as it is; nil if there is none. What was proposed before and
// never executed is discarded. Of the template's transform and the role's name the caller must have told whoever says yes.
func (a *Account) CreateChangeSet(ctx context.Context, w StackSpec, now *Stack) (ChangeSet, error) {
	kind := types.ChangeSetTypeUpdate
	if now != nil {
		if err := a.discardOld(ctx, *now); err != nil {
			return ChangeSet{}, err
		}
	} else {
		kind = types.ChangeSetTypeCreate
	}
	in := &cloudformation.CreateChangeSetInput{StackName: &w.Name, ChangeSetName: aws.String(changeSetPrefix + strconv.FormatInt(time.Now().UnixMilli(), 10)),
		ChangeSetType: kind, TemplateBody: &w.Template, Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam, types.CapabilityCapabilityAutoExpand}}
	in.Parameters = listOf(w.Parameters, func(name, value *string) types.Parameter {
		return types.Parameter{ParameterKey: name, ParameterValue: value}
	})
	out, err := a.stacks.CreateChangeSet(ctx, in)
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "ValidationError" {
		return ChangeSet{}, refused(w.Name, api.ErrorMessage())
	}
	if err != nil {
		return ChangeSet{}, translate("asking CloudFormation what it would do to stack "+w.Name, "stack "+w.Name, err)
	}
	p := ChangeSet{Stack: Stack{Name: w.Name, ID: aws.ToString(out.StackId), Status: string(types.StackStatusReviewInProgress)}, ID: aws.ToString(out.Id)}
	if now != nil {
		p.Stack = *now
	}
	return a.proposed(ctx, p)
}

// refused is the error of what CloudFormation does not take: at once, or when it has transformed the template.
func refused(stack, reason string) error {
	return fmt.Errorf("planning stack %s: %w: %s", stack, ErrRefused, firstLine(reason))
}

// proposed waits until CloudFormation has made up its mind.
func (a *Account) proposed(ctx context.Context, p ChangeSet) (ChangeSet, error) {
	ctx, cancel := context.WithTimeout(ctx, changeSetLimit)
	defer cancel()
	in := &cloudformation.DescribeChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID}
	failed := func(err error) error {
		return translate("asking CloudFormation what it would do to stack "+p.Stack.Name, "stack "+p.Stack.Name, err)
	}
	for {
		out, err := a.stacks.DescribeChangeSet(ctx, in)
		if err != nil {
			return p, failed(err)
		}
		switch out.Status {
		case types.ChangeSetStatusCreateComplete:
			p.Changes, err = every(ctx, cloudformation.NewDescribeChangeSetPaginator(a.stacks, in),
				func(page *cloudformation.DescribeChangeSetOutput) []types.Change { return page.Changes }, stackChange)
			p.Changes = slices.DeleteFunc(p.Changes, func(c StackChange) bool { return c.LogicalID == "" })
			return p, failed(err)
		case types.ChangeSetStatusFailed:
			reason := aws.ToString(out.StatusReason)
			if err := a.Discard(ctx, p); err != nil {
				return p, err
			}
			if strings.Contains(reason, "didn't contain changes") || strings.Contains(reason, "No updates are to be performed") {
				p.Empty = true
				return p, nil
			}
			return p, refused(p.Stack.Name, reason)
		}
		if err := pause(ctx, changeSetPause); err != nil {
			return p, fmt.Errorf("waiting for what CloudFormation would do to stack %s: %w", p.Stack.Name, err)
		}
	}
}

// stackChange is what would be done about a resource; empty if it is about something else.
func stackChange(c types.Change) StackChange {
	r := c.ResourceChange
	if r == nil {
		return StackChange{}
	}
	one := StackChange{StackResource: StackResource{aws.ToString(r.LogicalResourceId), aws.ToString(r.ResourceType),
		aws.ToString(r.PhysicalResourceId)}, Action: string(r.Action),
		Replaced: r.Replacement == types.ReplacementTrue || r.Replacement == types.ReplacementConditional}
	for _, d := range r.Details {
		if t := d.Target; t != nil && !slices.Contains(one.Of, aws.ToString(t.Name)) && t.Name != nil {
			one.Of = append(one.Of, *t.Name)
		}
	}
	return one
}

// Execute has CloudFormation do what it has proposed. It returns when CloudFormation has begun.
func (a *Account) Execute(ctx context.Context, p ChangeSet) error {
	_, err := a.stacks.ExecuteChangeSet(ctx,
		&cloudformation.ExecuteChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID})
	return translate("having CloudFormation change stack "+p.Stack.Name, "stack "+p.Stack.Name, err)
}

// Discard forgets a changeSet. Of a stack that was not there before nothing is left.
func (a *Account) Discard(ctx context.Context, p ChangeSet) error {
	if !p.Stack.InReview() {
		return a.deleteChangeSet(ctx, p.Stack, p.ID)
	}
	now, err := a.Stack(ctx, p.Stack.ID) // somebody else may have made something of it meanwhile
	if err != nil || now == nil {
		return err
	}
	others, err := a.OtherChangeSets(ctx, p.Stack)
	if err != nil {
		return err
	}
	if now.InReview() && len(others) == 0 {
		return a.DeleteStack(ctx, p.Stack)
	}
	return a.deleteChangeSet(ctx, p.Stack, p.ID)
}

// OtherChangeSets are the names of a stack's change sets that somebody else has made and not executed.
func (a *Account) OtherChangeSets(ctx context.Context, s Stack) (names []string, err error) {
	_, names, err = a.changeSets(ctx, s)
	return names, err
}

// changeSets are those of a stack that are not executed: ours by their ids, and others' by their names.
func (a *Account) changeSets(ctx context.Context, s Stack) (ours, others []string, err error) {
	all, err := every(ctx, cloudformation.NewListChangeSetsPaginator(a.stacks,
		&cloudformation.ListChangeSetsInput{StackName: &s.ID}),
		func(p *cloudformation.ListChangeSetsOutput) []types.ChangeSetSummary { return p.Summaries },
		func(one types.ChangeSetSummary) types.ChangeSetSummary { return one })
	for _, one := range all {
		switch name := aws.ToString(one.ChangeSetName); {
		case one.ExecutionStatus == types.ExecutionStatusExecuteComplete:
		case strings.HasPrefix(name, changeSetPrefix):
			ours = append(ours, aws.ToString(one.ChangeSetId))
		default:
			others = append(others, name)
		}
	}
	return ours, others, translate("looking for what was proposed for stack "+s.Name, "stack "+s.Name, err)
}

func (a *Account) deleteChangeSet(ctx context.Context, s Stack, id string) error {
	_, err := a.stacks.DeleteChangeSet(ctx,
		&cloudformation.DeleteChangeSetInput{ChangeSetName: &id, StackName: &s.ID})
	return translate("forgetting what was proposed for stack "+s.Name, "stack "+s.Name, err)
}

// discardOld forgets what was proposed and never executed: a run was broken off.
func (a *Account) discardOld(ctx context.Context, s Stack) error {
	ours, _, err := a.changeSets(ctx, s)
	if err != nil {
		return err
	}
	for _, id := range ours {
		if err := a.deleteChangeSet(ctx, s, id); err != nil {
			return err
		}
	}
	return nil
}
