package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Run is one deployment, or its removal. One that was broken off is repeated.
type Deployment struct {
	AWS      *awsadmin.Account
	Template *Template
	Spec     Spec

	// Say tells of each step that CloudFormation makes.
	Say func(awsadmin.StackEvent)

	// ResolvePending finds out for Spec what is known only when all before the stack is made; nil if there is nothing of that.
	ResolvePending func(ctx context.Context) error
}

// Plan is what is to be done.
type Plan struct {
	Changes        change.Plan
	Parameters     map[string]string // the stack's
	KeptParameters []string          // names of parameters that were found to be otherwise than the stack has them

	steps     []step
	changeSet awsadmin.ChangeSet
}

type step = change.Step[*Deployment]

func (p *Plan) add(c change.Change, write func(ctx context.Context, r *Deployment) error) {
	p.Changes, p.steps = append(p.Changes, c), append(p.steps, step{Change: c, Write: write})
}

// act adds the row of one call.
func (p *Plan) act(verb change.Verb, kind, name, why string, c awsadmin.Call) {
	p.add(change.Change{Verb: verb, Kind: kind, Name: name, Why: why},
		func(ctx context.Context, r *Deployment) error { return r.AWS.Do(ctx, c) })
}

// Apply carries a plan out, and waits until CloudFormation is done. An error names the row that could not be carried
// out; that CloudFormation has taken everything back is a *FailedError.
func (r *Deployment) Apply(ctx context.Context, p Plan) error { return change.Apply(ctx, r, p.steps) }

// Kinds of what is changed.
const (
	KindBucket = "S3 bucket"
	kindCode   = "S3 object"
	kindStack  = "CloudFormation stack"
)

// Plan says what a deployment would change. It waits for CloudFormation where that is at work, and has it propose what it
// would do: Apply or Discard ends that.
func (r *Deployment) Plan(ctx context.Context) (Plan, error) {
	now, err := r.currentStack(ctx)
	if err != nil {
		return Plan{}, err
	}
	if now != nil && now.RollbackFailed() {
		return Plan{}, fmt.Errorf("stack %s is stuck between two states (%s): %s: aws cloudformation continue-update-rollback --stack-name %s --region %s "+
			"brings it back; then run this again", now.Name, now.Status, now.Reason, now.Name, r.Spec.Region)
	}
	if now != nil && now.Parameters["Cluster"] != "" && now.Parameters["Cluster"] != r.Spec.Cluster {
		return Plan{}, fmt.Errorf("stack %s is of the cluster %s, and not of %s", now.Name, now.Parameters["Cluster"], r.Spec.Cluster)
	}
	var p Plan
	var dead *awsadmin.Stack
	if now != nil && now.MustBeDeleted() {
		dead, now = now, nil
	}
	var before map[string]string
	if is := cmp.Or(now, dead); is != nil {
		before = is.Parameters // of a dead one too: somebody has given them once
	}
	p.Parameters, p.KeptParameters = r.Spec.parameters(r.Template, before), r.Spec.keptParameters(before)
	if err := r.planCode(ctx, &p); err != nil {
		return p, err
	}
	stack := change.Change{Verb: change.Create, Kind: kindStack, Name: StackName(r.Spec.Cluster),
		Why: "the function and all that belongs to it"}
	if dead != nil {
		p.add(change.Change{Verb: change.Delete, Kind: kindStack, Name: dead.Name,
			Why: "it could not be made the last time (" + dead.Status + "): CloudFormation lets nothing else be done with it"},
			func(ctx context.Context, r *Deployment) error { return r.deleteStack(ctx, *dead) })
		p.add(stack, func(ctx context.Context, r *Deployment) error {
			return r.recreateAndExecute(ctx, awsadmin.ChangeSet{}, before)
		})
		return p, nil
	}
	if p.changeSet, err = r.createChangeSet(ctx, p.Parameters, now); err != nil {
		return p, err
	}
	execute := func(ctx context.Context, r *Deployment) error { return r.execute(ctx, p.changeSet) }
	if r.ResolvePending != nil {
		execute = func(ctx context.Context, r *Deployment) error { return r.recreateAndExecute(ctx, p.changeSet, before) }
	}
	switch {
	case p.changeSet.Empty:
		stack.Verb, execute = change.Keep, nil
	case now != nil:
		stack.Verb, stack.Diff = change.Update, parameterDiff(now.Parameters, p.Parameters, r.Template)
	}
	p.add(stack, execute)
	for _, c := range p.changeSet.Changes {
		p.add(resourceChange(c), nil)
	}
	return p, nil
}

// Parameters are those that the stack has, or had when it could not be made; nil if there is no stack.
func (r *Deployment) Parameters(ctx context.Context) (map[string]string, error) {
	s, err := r.AWS.Stack(ctx, StackName(r.Spec.Cluster))
	if err != nil || s == nil || s.InReview() {
		return nil, err
	}
	return s.Parameters, nil
}

// waitForStack is the stack when CloudFormation is not at work on it; nil if there is none.
func (r *Deployment) waitForStack(ctx context.Context) (*awsadmin.Stack, error) {
	now, err := r.AWS.Stack(ctx, StackName(r.Spec.Cluster))
	if err != nil || now == nil || !now.InProgress() {
		return now, err
	}
	after, err := r.AWS.Follow(ctx, *now, "", r.Say)
	if err != nil || after.Status == "DELETE_COMPLETE" {
		return nil, err
	}
	return &after, nil
}

// settled is the stack when CloudFormation is not at work on it; nil if there is none, or only a changeSet, which is forgotten.
func (r *Deployment) currentStack(ctx context.Context) (*awsadmin.Stack, error) {
	now, err := r.waitForStack(ctx)
	if err != nil || now == nil || !now.InReview() {
		return now, err
	}
	others, err := r.AWS.OtherChangeSets(ctx, *now)
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("somebody else has proposed what stack %s is to be, and not decided yet: execute or delete the change set %s in CloudFormation, "+
			"and run this again", now.Name, strings.Join(others, ", "))
	}
	return nil, r.deleteStack(ctx, *now)
}

func (r *Deployment) planCode(ctx context.Context, p *Plan) error {
	w := r.Spec
	name, hasCode := w.bucket(), false
	b, err := r.AWS.Bucket(ctx, name, w.Account, iam.TagManagedBy, iam.ManagedBy)
	if err != nil {
		return err
	}
	if b.There {
		keys, err := r.AWS.Objects(ctx, name, w.Account, w.key())
		if err != nil {
			return err
		}
		hasCode = slices.Contains(keys, w.key())
	}
	keep := change.Change{Verb: change.Keep, Kind: KindBucket, Name: name, Why: "for the code, private"}
	switch {
	case b.Foreign():
		keep.Why = "for the code; somebody else has made it, and it stays as it is"
		p.add(keep, nil)
	case b.There:
		p.add(keep, nil)
	default:
		p.act(change.Create, KindBucket, name, "for the code, private", awsadmin.CreateBucket(name, w.Region))
	}
	if !b.Foreign() && !b.Private {
		p.act(change.Create, "S3 public access block", name, "nobody can make anything in it public",
			awsadmin.BlockPublicAccess(name, w.Account))
	}
	if !b.Foreign() && !b.TLSOnly {
		p.act(change.Create, "S3 bucket policy", name, "over TLS alone",
			awsadmin.PutBucketPolicy(name, w.Account, w.bucketPolicy()))
	}
	if !b.Foreign() && !b.Ours {
		p.act(change.Tag, KindBucket, name, "", awsadmin.TagBucket(name, w.Account, iam.TagManagedBy, iam.ManagedBy))
	}
	why := fmt.Sprintf("the function's code, %d KB", (len(w.Code)+1023)/1024)
	if hasCode {
		p.add(change.Change{Verb: change.Keep, Kind: kindCode, Name: w.key(), Why: why}, nil)
	} else {
		p.act(change.Create, kindCode, w.key(), why, awsadmin.PutObject(name, w.Account, w.key(), w.Code))
	}
	return nil
}

// propose has CloudFormation say what it would do.
func (r *Deployment) createChangeSet(ctx context.Context, parameters map[string]string, now *awsadmin.Stack,
) (p awsadmin.ChangeSet, err error) {
	template, err := r.Template.packaged(r.Spec.bucket(), r.Spec.key())
	if err != nil {
		return p, err
	}
	wanted := awsadmin.StackSpec{Name: StackName(r.Spec.Cluster), Template: template, Parameters: parameters}
	p, err = r.AWS.CreateChangeSet(ctx, wanted, now)
	if errors.Is(err, awsadmin.ErrRefused) {
		return p, fmt.Errorf("%w\nwhere a parameter is wrong, set it with --set NAME=VALUE and run this again; "+
			"docs/stack.md says what each is for", err)
	}
	return p, err
}

// recreateAndExecute is for what could not be proposed before: the stack had to go first, or what it is to be given
// was not known.
func (r *Deployment) recreateAndExecute(ctx context.Context, old awsadmin.ChangeSet, before map[string]string) error {
	if err := r.discard(ctx, old); err != nil {
		return err
	}
	if r.ResolvePending != nil {
		if err := r.ResolvePending(ctx); err != nil {
			return err
		}
	}
	now, err := r.currentStack(ctx)
	if err != nil {
		return err
	}
	p, err := r.createChangeSet(ctx, r.Spec.parameters(r.Template, before), now)
	if err != nil || p.Empty {
		return err
	}
	return r.execute(ctx, p)
}

// execute has CloudFormation do what it has proposed, and waits for it.
func (r *Deployment) execute(ctx context.Context, p awsadmin.ChangeSet) error {
	before, err := r.AWS.LastEventID(ctx, p.Stack)
	if err != nil {
		return err
	}
	if err := r.AWS.Execute(ctx, p); err != nil {
		return err
	}
	return r.follow(ctx, p.Stack, before)
}

var verbs = map[string]change.Verb{"Add": change.Create, "Modify": change.Update, "Remove": change.Delete}

// resourceChange is what CloudFormation proposes, in the words of a plan.
func resourceChange(c awsadmin.StackChange) change.Change {
	verb, known := verbs[c.Action]
	if !known {
		verb = change.Update
	}
	out := change.Change{Part: true, Verb: verb, Kind: strings.ReplaceAll(strings.TrimPrefix(c.Type, "AWS::"), "::", " "),
		Name: c.LogicalID}
	if c.Name != "" && verb != change.Create {
		out.Name = c.LogicalID + " (" + arnName(c.Name) + ")"
	}
	if len(c.Properties) > 0 && verb == change.Update {
		out.Why = strings.Join(c.Properties, ", ")
	}
	if c.Replaced && verb == change.Update {
		out.Why = strings.TrimPrefix(out.Why+"; another one may be made in its place", "; ")
	}
	return out
}

// short is the end of an ARN or a URL.
func arnName(name string) string { return name[strings.LastIndexAny(name, ":/")+1:] }

// parameterDiff are the parameters that change, before and after.
func parameterDiff(before, after map[string]string, t *Template) (lines []string) {
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
func (r *Deployment) Discard(ctx context.Context, p Plan) error { return r.discard(ctx, p.changeSet) }

func (r *Deployment) discard(ctx context.Context, p awsadmin.ChangeSet) error {
	if p.ID == "" || p.Empty {
		return nil
	}
	return r.AWS.Discard(ctx, p)
}

// follow waits, and makes an error of what CloudFormation has taken back.
func (r *Deployment) follow(ctx context.Context, s awsadmin.Stack, before awsadmin.EventID) error {
	var causes []string
	after, err := r.AWS.Follow(ctx, s, before, func(e awsadmin.StackEvent) {
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

func (r *Deployment) deleteStack(ctx context.Context, s awsadmin.Stack) error {
	before, err := r.AWS.LastEventID(ctx, s)
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
	Stack  awsadmin.Stack
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
