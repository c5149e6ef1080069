package iamcloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"
)

// Wanted is a stack as it is to be.
type Wanted struct {
	Name, Template string
	Parameters     map[string]string
}

// Proposal is what CloudFormation would do to make a stack as it is wanted. It is to be executed or discarded.
type Proposal struct {
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

// Propose asks CloudFormation what it would do. now is the stack as it is; nil if there is none. What was proposed before and
// never executed is discarded. Of the template's transform and the role's name the caller must have told whoever says yes.
func (a *Account) Propose(ctx context.Context, w Wanted, now *Stack) (Proposal, error) {
	kind := types.ChangeSetTypeUpdate
	if now != nil {
		if err := a.discardOld(ctx, *now); err != nil {
			return Proposal{}, err
		}
	} else {
		kind = types.ChangeSetTypeCreate
	}
	in := &cloudformation.CreateChangeSetInput{StackName: &w.Name, ChangeSetName: aws.String(changeSetPrefix + strconv.FormatInt(time.Now().UnixMilli(), 10)),
		ChangeSetType: kind, TemplateBody: &w.Template, Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam, types.CapabilityCapabilityAutoExpand}}
	for _, name := range slices.Sorted(maps.Keys(w.Parameters)) {
		in.Parameters = append(in.Parameters, types.Parameter{ParameterKey: aws.String(name), ParameterValue: aws.String(w.Parameters[name])})
	}
	out, err := a.stacks.CreateChangeSet(ctx, in)
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "ValidationError" {
		return Proposal{}, refused(w.Name, api.ErrorMessage())
	}
	if err != nil {
		return Proposal{}, translate("asking CloudFormation what it would do to stack "+w.Name, "stack "+w.Name, err)
	}
	p := Proposal{Stack: Stack{Name: w.Name, ID: aws.ToString(out.StackId), Status: string(types.StackStatusReviewInProgress)}, ID: aws.ToString(out.Id)}
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
func (a *Account) proposed(ctx context.Context, p Proposal) (Proposal, error) {
	ctx, cancel := context.WithTimeout(ctx, changeSetLimit)
	defer cancel()
	for {
		out, err := a.stacks.DescribeChangeSet(ctx, &cloudformation.DescribeChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID})
		if err != nil {
			return p, translate("asking CloudFormation what it would do to stack "+p.Stack.Name, "stack "+p.Stack.Name, err)
		}
		switch out.Status {
		case types.ChangeSetStatusCreateComplete:
			err := a.changes(ctx, &p, out) // which is to be over before p is returned
			return p, err
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
		select {
		case <-ctx.Done():
			return p, fmt.Errorf("waiting for what CloudFormation would do to stack %s: %w", p.Stack.Name, context.Cause(ctx))
		case <-time.After(changeSetPause):
		}
	}
}

func (a *Account) changes(ctx context.Context, p *Proposal, page *cloudformation.DescribeChangeSetOutput) error {
	for {
		for _, c := range page.Changes {
			r := c.ResourceChange
			if r == nil {
				continue
			}
			one := StackChange{StackResource: StackResource{aws.ToString(r.LogicalResourceId), aws.ToString(r.ResourceType), aws.ToString(r.PhysicalResourceId)},
				Action: string(r.Action), Replaced: r.Replacement == types.ReplacementTrue || r.Replacement == types.ReplacementConditional}
			for _, d := range r.Details {
				if t := d.Target; t != nil && !slices.Contains(one.Of, aws.ToString(t.Name)) && t.Name != nil {
					one.Of = append(one.Of, *t.Name)
				}
			}
			p.Changes = append(p.Changes, one)
		}
		if page.NextToken == nil {
			return nil
		}
		next, err := a.stacks.DescribeChangeSet(ctx, &cloudformation.DescribeChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID, NextToken: page.NextToken})
		if err != nil {
			return translate("asking CloudFormation what it would do to stack "+p.Stack.Name, "stack "+p.Stack.Name, err)
		}
		page = next
	}
}

// Execute has CloudFormation do what it has proposed. It returns when CloudFormation has begun.
func (a *Account) Execute(ctx context.Context, p Proposal) error {
	if _, err := a.stacks.ExecuteChangeSet(ctx, &cloudformation.ExecuteChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID}); err != nil {
		return translate("having CloudFormation change stack "+p.Stack.Name, "stack "+p.Stack.Name, err)
	}
	return nil
}

// Discard forgets a proposal. Of a stack that was not there before nothing is left.
func (a *Account) Discard(ctx context.Context, p Proposal) error {
	if !p.Stack.Proposed() {
		return a.deleteChangeSet(ctx, p.Stack, p.ID)
	}
	now, err := a.Stack(ctx, p.Stack.ID) // somebody else may have made something of it meanwhile
	if err != nil || now == nil {
		return err
	}
	others, err := a.OthersProposals(ctx, p.Stack)
	if err != nil {
		return err
	}
	if now.Proposed() && len(others) == 0 {
		return a.DeleteStack(ctx, p.Stack)
	}
	return a.deleteChangeSet(ctx, p.Stack, p.ID)
}

// OthersProposals are the names of a stack's change sets that somebody else has made and not executed.
func (a *Account) OthersProposals(ctx context.Context, s Stack) (names []string, err error) {
	all, err := a.changeSets(ctx, s)
	for _, one := range all {
		if name := aws.ToString(one.ChangeSetName); !strings.HasPrefix(name, changeSetPrefix) {
			names = append(names, name)
		}
	}
	return names, err
}

// changeSets are those of a stack that are not executed.
func (a *Account) changeSets(ctx context.Context, s Stack) (all []types.ChangeSetSummary, err error) {
	all, err = every(ctx, cloudformation.NewListChangeSetsPaginator(a.stacks,
		&cloudformation.ListChangeSetsInput{StackName: &s.ID}),
		func(p *cloudformation.ListChangeSetsOutput) []types.ChangeSetSummary { return p.Summaries },
		func(one types.ChangeSetSummary) types.ChangeSetSummary { return one })
	all = slices.DeleteFunc(all, func(one types.ChangeSetSummary) bool {
		return one.ExecutionStatus == types.ExecutionStatusExecuteComplete
	})
	return all, translate("looking for what was proposed for stack "+s.Name, "stack "+s.Name, err)
}

func (a *Account) deleteChangeSet(ctx context.Context, s Stack, id string) error {
	if _, err := a.stacks.DeleteChangeSet(ctx, &cloudformation.DeleteChangeSetInput{ChangeSetName: &id, StackName: &s.ID}); err != nil {
		return translate("forgetting what was proposed for stack "+s.Name, "stack "+s.Name, err)
	}
	return nil
}

// discardOld forgets what was proposed and never executed: a run was broken off.
func (a *Account) discardOld(ctx context.Context, s Stack) error {
	all, err := a.changeSets(ctx, s)
	if err != nil {
		return err
	}
	for _, old := range all {
		if !strings.HasPrefix(aws.ToString(old.ChangeSetName), changeSetPrefix) {
			continue
		}
		if err := a.deleteChangeSet(ctx, s, aws.ToString(old.ChangeSetId)); err != nil {
			return err
		}
	}
	return nil
}
