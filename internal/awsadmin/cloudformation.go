package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// Stack is a CloudFormation stack.
type Stack struct {
	Name, ID        string
	Status          string // as in CloudFormation: CREATE_COMPLETE
	Reason          string
	Parameters      map[string]string
	Tags            map[string]string
	Created, Change time.Time // Change is the last update; zero for none
}

// InProgress reports whether CloudFormation is working on the stack.
func (s Stack) InProgress() bool { return strings.HasSuffix(s.Status, "_IN_PROGRESS") && !s.InReview() }

// InReview reports whether the stack has only a change set that nobody has executed, and no resources yet.
func (s Stack) InReview() bool { return s.Status == string(types.StackStatusReviewInProgress) }

// MustBeDeleted reports whether CloudFormation refuses everything but to delete the stack: creating it has failed.
func (s Stack) MustBeDeleted() bool {
	return slices.Contains([]types.StackStatus{types.StackStatusRollbackComplete, types.StackStatusRollbackFailed,
		types.StackStatusCreateFailed, types.StackStatusDeleteFailed}, types.StackStatus(s.Status))
}

// RollbackFailed reports whether somebody has to finish the rollback of an update.
func (s Stack) RollbackFailed() bool {
	return s.Status == string(types.StackStatusUpdateRollbackFailed)
}

// TagsWith returns the stack's tags with more, since an update replaces all of them. AWS's own are not among them.
func (s Stack) TagsWith(more map[string]string) map[string]string {
	tags := map[string]string{}
	maps.Copy(tags, s.Tags)
	maps.DeleteFunc(tags, func(key, _ string) bool { return strings.HasPrefix(key, "aws:") })
	maps.Copy(tags, more)
	return tags
}

// Stack reads a stack by its name or ID; nil if there is none. A deleted stack is found only by its ID.
func (a *Account) Stack(ctx context.Context, name string) (*Stack, error) {
	out, err := a.stacks.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		if code, message := apiError(err); code == "ValidationError" && strings.Contains(message, "does not exist") {
			return nil, nil
		}
		return nil, translate("stack "+name, err)
	}
	if len(out.Stacks) == 0 {
		return nil, nil
	}
	one := out.Stacks[0]
	return &Stack{Name: aws.ToString(one.StackName), ID: aws.ToString(one.StackId), Status: string(one.StackStatus),
		Reason: aws.ToString(one.StackStatusReason),
		Parameters: mapOf(one.Parameters,
			func(p types.Parameter) (key, value *string) { return p.ParameterKey, p.ParameterValue }),
		Tags:    mapOf(one.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value }),
		Created: aws.ToTime(one.CreationTime), Change: aws.ToTime(one.LastUpdatedTime)}, nil
}

// StackResource is a resource of a stack. Name is its physical ID; empty before it is created.
type StackResource struct{ LogicalID, Type, Name string }

// StackResources lists the resources of a stack.
func (a *Account) StackResources(ctx context.Context, stack string) (all []StackResource, err error) {
	summaries, err := every(ctx, "stack "+stack, cloudformation.NewListStackResourcesPaginator(a.stacks,
		&cloudformation.ListStackResourcesInput{StackName: &stack}),
		func(p *cloudformation.ListStackResourcesOutput) []types.StackResourceSummary {
			return p.StackResourceSummaries
		},
		itself)
	for _, r := range summaries {
		if r.ResourceStatus != types.ResourceStatusDeleteComplete && aws.ToString(r.LogicalResourceId) != "" {
			all = append(all, StackResource{aws.ToString(r.LogicalResourceId), aws.ToString(r.ResourceType),
				aws.ToString(r.PhysicalResourceId)})
		}
	}
	return all, err
}

// List splits the value of a list parameter.
func List(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

// StackOf returns the name of the stack that has created a resource; empty for none. name is its physical ID.
func (a *Account) StackOf(ctx context.Context, name string) (string, error) {
	out, err := a.stacks.DescribeStackResources(ctx,
		&cloudformation.DescribeStackResourcesInput{PhysicalResourceId: &name})
	code, message := apiError(err)
	switch {
	case code == "ValidationError" && strings.Contains(message, "does not exist"),
		err == nil && len(out.StackResources) == 0:
		return "", nil
	case err != nil:
		return "", translate(name, err)
	}
	return aws.ToString(out.StackResources[0].StackName), nil
}

// DeleteStack starts the deletion of a stack.
func (a *Account) DeleteStack(ctx context.Context, s Stack) error {
	_, err := a.stacks.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &s.ID})
	return translate("stack "+s.Name, err)
}

// StackEvent is an event of a stack.
type StackEvent struct{ LogicalID, Type, Status, Reason string }

// Ended reports whether the event ends an operation.
func (e StackEvent) Ended() bool { return !strings.HasSuffix(e.Status, "_IN_PROGRESS") }

// Failed reports whether the event is the cause of a rollback. CloudFormation cancels other operations because of it.
func (e StackEvent) Failed() bool {
	return strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(strings.ToLower(e.Reason), "cancelled")
}

// LastEventID returns the ID of a stack's latest event; empty if it has none.
func (a *Account) LastEventID(ctx context.Context, s Stack) (string, error) {
	out, err := a.stacks.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: &s.ID})
	if err != nil || len(out.StackEvents) == 0 {
		return "", translate("stack "+s.Name, err)
	}
	return aws.ToString(out.StackEvents[0].EventId), nil
}

const (
	stackPoll = 2 * time.Second

	// startLimit is how long CloudFormation may take to start an operation. Until then the stack looks as before.
	startLimit = time.Minute
)

// Follow waits until the operation that began after an event has ended, and reports each event since. Without such an
// event it waits until no operation is in progress. The operation may have failed: see the status of the result.
func (a *Account) Follow(ctx context.Context, s Stack, after string, report func(StackEvent)) (Stack, error) {
	seen, ended := map[string]bool{after: true}, after == ""
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
				report(e)
			}
		}
		switch {
		case now == nil: // deleted, and no longer listed
			s.Status = string(types.StackStatusDeleteComplete)
			return s, nil
		case !now.InProgress() && (ended || time.Since(began) > startLimit):
			return *now, nil
		}
		if err := Pause(ctx, stackPoll); err != nil {
			return *now, fmt.Errorf("waiting for stack %s, on which CloudFormation is still working: %w", s.Name, err)
		}
	}
}

// newEvents returns the events that are not in seen, oldest first, and adds them to it.
func (a *Account) newEvents(ctx context.Context, s Stack, seen map[string]bool) (fresh []StackEvent, err error) {
	pages := cloudformation.NewDescribeStackEventsPaginator(a.stacks,
		&cloudformation.DescribeStackEventsInput{StackName: &s.ID})
	for more := true; more && pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if code, _ := apiError(err); code == "ValidationError" { // the stack is deleted
			break
		} else if err != nil {
			return nil, translate("stack "+s.Name, err)
		}
		for _, e := range page.StackEvents {
			id := aws.ToString(e.EventId)
			if more = !seen[id]; !more {
				break // CloudFormation returns the latest first
			}
			seen[id] = true
			fresh = append(fresh, StackEvent{aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceType),
				string(e.ResourceStatus), firstLine(aws.ToString(e.ResourceStatusReason))})
		}
	}
	slices.Reverse(fresh)
	return fresh, nil
}

// StackSpec is the wanted state of a stack.
type StackSpec struct {
	Name          string
	Template, URL string            // either the text, of at most MaxTemplate bytes, or its location in S3
	Parameters    map[string]string // HiddenValue keeps the stack's value
	Tags          map[string]string // more than the stack has
}

// HiddenValue is what CloudFormation shows of a parameter with NoEcho, whatever its value.
const HiddenValue = "****"

// MaxTemplate is CloudFormation's limit for a template that is not in S3.
const MaxTemplate = 51200

// ChangeSet is what CloudFormation would change. It has to be executed or discarded, unless it is empty.
type ChangeSet struct {
	Stack   Stack
	ID      string
	Empty   bool
	Changes []StackChange
}

// StackChange is the change of one resource.
type StackChange struct {
	StackResource
	Action     string // as in CloudFormation: Add, Modify, Remove
	Replaced   bool   // certainly or possibly
	Properties []string
}

const (
	// changeSetPrefix begins the names of our change sets.
	changeSetPrefix = "kops-spot-"

	changeSetPoll  = time.Second
	changeSetLimit = 5 * time.Minute
)

// CreateChangeSet creates a change set, and discards our earlier ones. now is the current stack; nil if there is none.
// The operator must know that the template has a transform and a named role: that is acknowledged here.
func (a *Account) CreateChangeSet(ctx context.Context, w StackSpec, now *Stack) (ChangeSet, error) {
	kind, tags := types.ChangeSetTypeCreate, w.Tags
	if now != nil {
		kind, tags = types.ChangeSetTypeUpdate, now.TagsWith(w.Tags)
		old, _, err := a.ChangeSets(ctx, *now)
		for _, id := range old {
			err = errors.Join(err, a.deleteChangeSet(ctx, *now, id))
		}
		if err != nil {
			return ChangeSet{}, err
		}
	}
	in := &cloudformation.CreateChangeSetInput{
		StackName: &w.Name, ChangeSetType: kind, TemplateBody: optional(w.Template), TemplateURL: optional(w.URL),
		ChangeSetName: aws.String(changeSetPrefix + strconv.FormatInt(time.Now().UnixMilli(), 10)),
		Capabilities:  []types.Capability{types.CapabilityCapabilityNamedIam, types.CapabilityCapabilityAutoExpand},
		Tags:          listOf(tags, func(key, value *string) types.Tag { return types.Tag{Key: key, Value: value} }),
		Parameters: listOf(w.Parameters, func(name, value *string) types.Parameter {
			if *value == HiddenValue {
				return types.Parameter{ParameterKey: name, UsePreviousValue: aws.Bool(true)}
			}
			return types.Parameter{ParameterKey: name, ParameterValue: value}
		})}
	if now == nil { // no stack has the value
		in.Parameters = slices.DeleteFunc(in.Parameters, func(p types.Parameter) bool { return aws.ToBool(p.UsePreviousValue) })
	}
	var out *cloudformation.CreateChangeSetOutput
	if err := a.Do(ctx, Call{"stack " + w.Name, func(ctx context.Context, a *Account) (err error) {
		out, err = a.stacks.CreateChangeSet(ctx, in)
		if code, message := apiError(err); code == "ValidationError" && delayOf(err) == nil {
			return &RefusedError{Stack: w.Name, Reason: message}
		}
		return err
	}}); err != nil {
		return ChangeSet{}, err
	}
	p := ChangeSet{ID: aws.ToString(out.Id), Stack: Stack{Name: w.Name, ID: aws.ToString(out.StackId),
		Status: string(types.StackStatusReviewInProgress)}}
	if now != nil {
		p.Stack = *now
	}
	return a.waitForChangeSet(ctx, p)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// RefusedError means that CloudFormation refuses a template with its parameters: at once, after the transform, or after
// its early validation. It is an ErrRefused.
type RefusedError struct {
	Stack, Reason string

	// Invalid are the resources that early validation rejects, if AWS names them.
	Invalid []InvalidResource
}

// InvalidResource is a resource that CloudFormation could not create. Name is the one that it would have, if known.
type InvalidResource struct {
	StackResource
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("planning stack %s: %v: %s", e.Stack, ErrRefused, e.Reason)
}

func (e *RefusedError) Unwrap() error { return ErrRefused }

// identifier matches the name of an existing resource in CloudFormation's reason, in JSON or not.
var identifier = regexp.MustCompile(`identifier '(?:\{"[^"]+":")?([^'"]+)[^']*' already exists`)

// TakenName returns the name of the resource that already exists by CloudFormation's reason; empty if it is another
// reason.
func TakenName(reason string) string {
	if match := identifier.FindStringSubmatch(reason); match != nil {
		return match[1]
	}
	return ""
}

// invalidResources returns the resources because of which early validation has failed. DescribeChangeSet does not name
// them.
func (a *Account) invalidResources(ctx context.Context, p ChangeSet) ([]InvalidResource, error) {
	all, err := every(ctx, "stack "+p.Stack.Name, cloudformation.NewDescribeEventsPaginator(a.stacks,
		&cloudformation.DescribeEventsInput{ChangeSetName: &p.ID, Filters: &types.EventFilter{FailedEvents: aws.Bool(true)}}),
		func(page *cloudformation.DescribeEventsOutput) []types.OperationEvent { return page.OperationEvents },
		func(e types.OperationEvent) InvalidResource {
			r := InvalidResource{StackResource{aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceType),
				aws.ToString(e.PhysicalResourceId)}, firstLine(aws.ToString(e.ValidationStatusReason))}
			if r.Name == "" {
				r.Name = TakenName(r.Reason)
			}
			if e.ValidationFailureMode == types.HookFailureModeWarn {
				r.Reason = "" // it fails nothing
			}
			return r
		})
	return slices.DeleteFunc(all, func(r InvalidResource) bool { return r.Reason == "" }), err
}

func (a *Account) waitForChangeSet(ctx context.Context, p ChangeSet) (ChangeSet, error) {
	ctx, cancel := context.WithTimeout(ctx, changeSetLimit)
	defer cancel()
	in, on := &cloudformation.DescribeChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID}, "stack "+p.Stack.Name
	for {
		out, err := a.stacks.DescribeChangeSet(ctx, in)
		if err != nil {
			return p, translate(on, err)
		}
		switch out.Status {
		case types.ChangeSetStatusCreateComplete:
			p.Changes, err = every(ctx, on, cloudformation.NewDescribeChangeSetPaginator(a.stacks, in),
				func(page *cloudformation.DescribeChangeSetOutput) []types.Change { return page.Changes }, stackChange)
			p.Changes = slices.DeleteFunc(p.Changes, func(c StackChange) bool { return c.LogicalID == "" })
			return p, err
		case types.ChangeSetStatusFailed:
			reason := aws.ToString(out.StatusReason)
			p.Empty = strings.Contains(reason, "didn't contain changes") ||
				strings.Contains(reason, "No updates are to be performed")
			refused := &RefusedError{Stack: p.Stack.Name, Reason: firstLine(reason)}
			if !p.Empty { // the details go with the change set; without them, the reason remains
				refused.Invalid, err = a.invalidResources(ctx, p)
				if errors.Is(err, ErrDenied) {
					refused.Reason += ": to see the details, allow cloudformation:DescribeEvents and run this again"
				}
			}
			if err := a.Discard(ctx, p); err != nil || p.Empty {
				return p, err
			}
			return p, refused
		}
		if err := Pause(ctx, changeSetPoll); err != nil {
			return p, fmt.Errorf("waiting for the change set of stack %s: %w", p.Stack.Name, err)
		}
	}
}

// stackChange converts the change of a resource; of anything else, to a zero StackChange.
func stackChange(c types.Change) (one StackChange) {
	r := c.ResourceChange
	if r == nil {
		return one
	}
	one.LogicalID, one.Type = aws.ToString(r.LogicalResourceId), aws.ToString(r.ResourceType)
	one.Name, one.Action = aws.ToString(r.PhysicalResourceId), string(r.Action)
	one.Replaced = r.Replacement == types.ReplacementTrue || r.Replacement == types.ReplacementConditional
	for _, d := range r.Details {
		if t := d.Target; t != nil && t.Name != nil && !slices.Contains(one.Properties, *t.Name) {
			one.Properties = append(one.Properties, *t.Name)
		}
	}
	return one
}

// Execute starts the execution of a change set.
func (a *Account) Execute(ctx context.Context, p ChangeSet) error {
	in := &cloudformation.ExecuteChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack.ID}
	_, err := a.stacks.ExecuteChangeSet(ctx, in)
	return translate("stack "+p.Stack.Name, err)
}

// Discard deletes a change set, and its stack if it has nothing else.
func (a *Account) Discard(ctx context.Context, p ChangeSet) error {
	if !p.Stack.InReview() {
		return a.deleteChangeSet(ctx, p.Stack, p.ID)
	}
	now, err := a.Stack(ctx, p.Stack.ID) // somebody else may have used it meanwhile
	if err != nil || now == nil {
		return err
	}
	_, others, err := a.ChangeSets(ctx, p.Stack)
	if err != nil {
		return err
	}
	if now.InReview() && len(others) == 0 {
		return a.DeleteStack(ctx, p.Stack)
	}
	return a.deleteChangeSet(ctx, p.Stack, p.ID)
}

// ChangeSets lists the pending change sets of a stack: ours by ID, others by name.
func (a *Account) ChangeSets(ctx context.Context, s Stack) (ours, others []string, err error) {
	all, err := every(ctx, "stack "+s.Name, cloudformation.NewListChangeSetsPaginator(a.stacks,
		&cloudformation.ListChangeSetsInput{StackName: &s.ID}),
		func(p *cloudformation.ListChangeSetsOutput) []types.ChangeSetSummary { return p.Summaries }, itself)
	for _, one := range all {
		switch name := aws.ToString(one.ChangeSetName); {
		case one.ExecutionStatus == types.ExecutionStatusExecuteComplete:
		case strings.HasPrefix(name, changeSetPrefix):
			ours = append(ours, aws.ToString(one.ChangeSetId))
		default:
			others = append(others, name)
		}
	}
	return ours, others, err
}

func (a *Account) deleteChangeSet(ctx context.Context, s Stack, id string) error {
	in := &cloudformation.DeleteChangeSetInput{ChangeSetName: &id, StackName: &s.ID}
	_, err := a.stacks.DeleteChangeSet(ctx, in)
	return translate("stack "+s.Name, err)
}
