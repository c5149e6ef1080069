package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// Run is one deployment, or its removal. One that was broken off is repeated.
type Run struct {
	AWS      *iamcloud.Account
	Template *Template
	Want     Want

	// Say tells of each step that CloudFormation makes.
	Say func(iamcloud.StackEvent)
}

// Planned is what is to be done.
type Planned struct {
	Changes    change.Plan
	Parameters map[string]string // the stack's
	Stays      []string          // names of parameters that were found to be otherwise than the stack has them

	proposal iamcloud.Proposal
	dead     *iamcloud.Stack // one that has to be deleted first
	bucket   iamcloud.Bucket
	key      string // of the code
	hasCode  bool
}

// Kinds of what is changed.
const (
	KindBucket = "S3 bucket"
	kindCode   = "S3 object"
	kindStack  = "CloudFormation stack"
)

// Plan says what a deployment would change. It waits for CloudFormation where that is at work, and has it propose what it
// would do: Apply or Discard ends that.
func (r *Run) Plan(ctx context.Context) (Planned, error) {
	now, err := r.settled(ctx)
	if err != nil {
		return Planned{}, err
	}
	if now != nil && now.Stuck() {
		return Planned{}, fmt.Errorf("stack %s is stuck between two states (%s): %s: aws cloudformation continue-update-rollback --stack-name %s --region %s "+
			"brings it back; then run this again", now.Name, now.Status, now.Reason, now.Name, r.Want.Region)
	}
	if now != nil && now.Parameters["Cluster"] != "" && now.Parameters["Cluster"] != r.Want.Cluster {
		return Planned{}, fmt.Errorf("stack %s is of the cluster %s, and not of %s", now.Name, now.Parameters["Cluster"], r.Want.Cluster)
	}
	var p Planned
	if now != nil && now.Dead() {
		p.dead, now = now, nil
	}
	var before map[string]string
	switch {
	case now != nil:
		before = now.Parameters
	case p.dead != nil:
		before = p.dead.Parameters // which somebody has given once
	}
	p.Parameters, p.Stays = r.Want.parameters(r.Template, before), r.Want.stays(before)
	if err := r.planCode(ctx, &p); err != nil {
		return p, err
	}
	if p.dead != nil {
		p.Changes = append(p.Changes, change.Change{Verb: change.Delete, Kind: kindStack, Name: p.dead.Name,
			Why: "it could not be made the last time (" + p.dead.Status + "), and CloudFormation lets nothing else be done with it"},
			change.Change{Verb: change.Create, Kind: kindStack, Name: p.dead.Name, Why: "the function and all that belongs to it"})
		return p, nil
	}
	return p, r.planStack(ctx, &p, now)
}

// Parameters are those that the stack has, or had when it could not be made; nil if there is no stack.
func (r *Run) Parameters(ctx context.Context) (map[string]string, error) {
	s, err := r.AWS.Stack(ctx, StackName(r.Want.Cluster))
	if err != nil || s == nil || s.Proposed() {
		return nil, err
	}
	return s.Parameters, nil
}

// atRest is the stack when CloudFormation is not at work on it; nil if there is none.
func (r *Run) atRest(ctx context.Context) (*iamcloud.Stack, error) {
	now, err := r.AWS.Stack(ctx, StackName(r.Want.Cluster))
	if err != nil || now == nil || !now.Busy() {
		return now, err
	}
	after, err := r.AWS.Follow(ctx, *now, "", r.Say)
	if err != nil || after.Status == "DELETE_COMPLETE" {
		return nil, err
	}
	return &after, nil
}

// settled is the stack when CloudFormation is not at work on it; nil if there is none, or only a proposal, which is forgotten.
func (r *Run) settled(ctx context.Context) (*iamcloud.Stack, error) {
	now, err := r.atRest(ctx)
	if err != nil || now == nil || !now.Proposed() {
		return now, err
	}
	others, err := r.AWS.OthersProposals(ctx, *now)
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("somebody else has proposed what stack %s is to be, and not decided yet: execute or delete the change set %s in CloudFormation, "+
			"and run this again", now.Name, strings.Join(others, ", "))
	}
	return nil, r.deleteStack(ctx, *now)
}

func (r *Run) planCode(ctx context.Context, p *Planned) (err error) {
	w := r.Want
	p.key = w.key()
	if p.bucket, err = r.AWS.Bucket(ctx, w.bucket(), w.Account, iam.TagManagedBy, iam.ManagedBy); err != nil {
		return err
	}
	if p.bucket.There {
		keys, err := r.AWS.Objects(ctx, w.bucket(), w.Account, p.key)
		if err != nil {
			return err
		}
		p.hasCode = slices.Contains(keys, p.key)
	}
	bucket := change.Change{Verb: change.Keep, Kind: KindBucket, Name: w.bucket(), Why: "for the code, private"}
	switch b := p.bucket; {
	case !b.There:
		bucket.Verb = change.Create
	case b.Foreign():
		bucket.Why = "for the code; somebody else has made it, and it stays as it is"
	case !b.Private || !b.TLSOnly || !b.Ours:
		bucket.Verb = change.Update
	}
	code := change.Change{Verb: change.Keep, Kind: kindCode, Name: p.key, Why: fmt.Sprintf("the function's code, %d KB", (len(w.Code)+1023)/1024)}
	if !p.hasCode {
		code.Verb = change.Create
	}
	p.Changes = append(p.Changes, bucket, code)
	return nil
}

// planStack has CloudFormation propose.
func (r *Run) planStack(ctx context.Context, p *Planned, now *iamcloud.Stack) error {
	template, err := r.Template.packaged(r.Want.bucket(), p.key)
	if err != nil {
		return err
	}
	wanted := iamcloud.Wanted{Name: StackName(r.Want.Cluster), Template: template, Parameters: p.Parameters}
	p.proposal, err = r.AWS.Propose(ctx, wanted, now)
	if errors.Is(err, iamcloud.ErrRefused) {
		return fmt.Errorf("%w\nwhere a parameter is wrong, set it with --set NAME=VALUE and run this again; "+
			"docs/deploying.md says what each is for", err)
	}
	if err != nil {
		return err
	}
	stack := change.Change{Verb: change.Create, Kind: kindStack, Name: p.proposal.Stack.Name, Why: "the function and all that belongs to it"}
	switch {
	case p.proposal.Empty:
		stack.Verb = change.Keep
	case now != nil:
		stack.Verb = change.Update
		stack.Diff = differences(now.Parameters, p.Parameters, r.Template)
	}
	p.Changes = append(p.Changes, stack)
	for _, c := range p.proposal.Changes {
		p.Changes = append(p.Changes, changeOf(c))
	}
	return nil
}

var verbs = map[string]change.Verb{"Add": change.Create, "Modify": change.Update, "Remove": change.Delete}

// changeOf is what CloudFormation proposes, in the words of a plan.
func changeOf(c iamcloud.StackChange) change.Change {
	verb, known := verbs[c.Action]
	if !known {
		verb = change.Update
	}
	out := change.Change{Verb: verb, Kind: strings.ReplaceAll(strings.TrimPrefix(c.Type, "AWS::"), "::", " "), Name: c.LogicalID}
	if c.Name != "" && verb != change.Create {
		out.Name = c.LogicalID + " (" + short(c.Name) + ")"
	}
	if len(c.Of) > 0 && verb == change.Update {
		out.Why = strings.Join(c.Of, ", ")
	}
	if c.Replaced && verb == change.Update {
		out.Why = strings.TrimPrefix(out.Why+"; another one may be made in its place", "; ")
	}
	return out
}

// short is the end of an ARN or a URL.
func short(name string) string { return name[strings.LastIndexAny(name, ":/")+1:] }

// differences are the parameters that change, before and after.
func differences(before, after map[string]string, t *Template) (lines []string) {
	value := func(of map[string]string, name string) string {
		if v, ok := of[name]; ok {
			return v
		}
		if d := t.Defaults[name]; d != nil {
			return *d
		}
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(t.Defaults)) {
		if was, is := value(before, name), value(after, name); was != is {
			lines = append(lines, "- "+name+"="+cut(was), "+ "+name+"="+cut(is))
		}
	}
	return lines
}

// cut leaves of a long value, such as a certificate, what fits on a line.
func cut(value string) string {
	const fits = 60
	if len(value) > fits {
		return value[:fits] + "…"
	}
	return value
}

// Discard forgets what CloudFormation has proposed.
func (r *Run) Discard(ctx context.Context, p Planned) error {
	if p.proposal.ID == "" || p.proposal.Empty {
		return nil
	}
	return r.AWS.Discard(ctx, p.proposal)
}

// upload puts the code where the stack takes it from.
func (r *Run) upload(ctx context.Context, p Planned) error {
	w := r.Want
	calls := r.AWS.MakeBucket(p.bucket, w.Account, iam.TagManagedBy, iam.ManagedBy, w.bucketPolicy())
	if !p.hasCode {
		calls = append(calls, iamcloud.PutObject(w.bucket(), w.Account, p.key, w.Code))
	}
	return r.do(ctx, calls)
}

func (r *Run) do(ctx context.Context, calls []iamcloud.Call) error {
	for _, c := range calls {
		if err := r.AWS.Do(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Apply carries a plan out, and waits until CloudFormation is done. That it has taken everything back is a *FailedError.
func (r *Run) Apply(ctx context.Context, p Planned) error {
	if err := r.upload(ctx, p); err != nil {
		return err
	}
	if p.dead != nil {
		if err := r.deleteStack(ctx, *p.dead); err != nil {
			return err
		}
		if err := r.planStack(ctx, &p, nil); err != nil {
			return err
		}
	}
	if p.proposal.Empty {
		return nil
	}
	before, err := r.AWS.LastStep(ctx, p.proposal.Stack)
	if err != nil {
		return err
	}
	if err := r.AWS.Execute(ctx, p.proposal); err != nil {
		return err
	}
	return r.follow(ctx, p.proposal.Stack, before)
}

// follow waits, and makes an error of what CloudFormation has taken back.
func (r *Run) follow(ctx context.Context, s iamcloud.Stack, before iamcloud.Mark) error {
	var causes []string
	after, err := r.AWS.Follow(ctx, s, before, func(e iamcloud.StackEvent) {
		if e.Failed() && e.LogicalID != s.Name && e.Reason != "" {
			causes = append(causes, e.LogicalID+" ("+e.Type+"): "+e.Reason)
		}
		r.Say(e)
	})
	if err != nil {
		return err
	}
	if slices.Contains([]string{"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}, after.Status) {
		return nil
	}
	return &FailedError{Stack: after, Causes: causes}
}

func (r *Run) deleteStack(ctx context.Context, s iamcloud.Stack) error {
	before, err := r.AWS.LastStep(ctx, s)
	if err != nil {
		return err
	}
	if err := r.AWS.DeleteStack(ctx, s); err != nil {
		return err
	}
	return r.follow(ctx, s, before)
}

// FailedError is told where CloudFormation could not do what it was to do.
type FailedError struct {
	Stack  iamcloud.Stack
	Causes []string // what failed of itself, the first first
}

func (e *FailedError) Error() string {
	because := e.Stack.Reason
	if len(e.Causes) > 0 {
		because = strings.Join(e.Causes, "\n  ")
	}
	return fmt.Sprintf("%s, because\n  %s\n%s", e.happened(), because, e.advice())
}

func (e *FailedError) happened() string {
	switch s := e.Stack.Status; s {
	case "ROLLBACK_COMPLETE":
		return "CloudFormation could not make the stack " + e.Stack.Name + ", and has taken away again what it had made"
	case "UPDATE_ROLLBACK_COMPLETE":
		return "CloudFormation could not change the stack " + e.Stack.Name + ", and has put it back as it was: the function runs as before"
	case "DELETE_FAILED":
		return "CloudFormation could not delete all of the stack " + e.Stack.Name
	default:
		return "CloudFormation has left the stack " + e.Stack.Name + " as " + s
	}
}

func (e *FailedError) advice() string {
	switch e.Stack.Status {
	case "ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "DELETE_FAILED":
		return "mend that, and run this again"
	case "UPDATE_ROLLBACK_FAILED":
		return "mend that, and have it put back: aws cloudformation continue-update-rollback --stack-name " + e.Stack.Name
	}
	return "look at it in CloudFormation's console"
}
