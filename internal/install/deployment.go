// Package install deploys the function as a CloudFormation stack of the SAM template, with its code in a bucket of the
// account, and deletes both. Package check verifies the result.
package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Deployment deploys the function or deletes the deployment. After an interruption, a new plan contains the rest.
type Deployment struct {
	AWS      *awsadmin.Account
	Template *Template
	Spec     Spec

	// Say reports each CloudFormation event, and what else takes long as an event with the status RETRY.
	Say func(awsadmin.StackEvent)

	// ResolvePending sets in Spec what is known only after the steps before the stack; nil if nothing is pending.
	ResolvePending func(ctx context.Context) error

	pending awsadmin.ChangeSet // it was created, and neither executed nor discarded
}

// Plan is what to change.
type Plan struct {
	Changes        change.Plan
	Parameters     map[string]string // of the stack
	KeptParameters []string          // names of parameters whose value in the stack differs from the discovered one

	steps        []step
	changeSet    awsadmin.ChangeSet
	terminations *terminations // that its deletions of hooks wait for
}

type step = change.Step[*Deployment]

func (p *Plan) add(verb change.Verb, kind, name, why string, write func(context.Context, *Deployment) error) {
	p.addChange(change.Change{Verb: verb, Kind: kind, Name: name, Why: why}, write)
}

func (p *Plan) addChange(c change.Change, write func(context.Context, *Deployment) error) {
	p.Changes, p.steps = append(p.Changes, c), append(p.steps, step{Change: c, Write: write})
}

// addCall adds a row with its call.
func (p *Plan) addCall(verb change.Verb, kind, name, why string, c awsadmin.Call) {
	p.add(verb, kind, name, why, func(ctx context.Context, r *Deployment) error { return r.AWS.Do(ctx, c) })
}

// Apply carries out a plan, and waits for CloudFormation. A rollback is a *FailedError. If a step before the stack's
// fails, the change set is discarded.
func (r *Deployment) Apply(ctx context.Context, p Plan) error {
	err := change.Apply(ctx, r, p.steps)
	if err != nil {
		err = errors.Join(err, r.discard(context.WithoutCancel(ctx), r.pending))
	}
	return err
}

const (
	KindBucket = "S3 bucket"
	kindObject = "S3 object"
	kindStack  = "CloudFormation stack"
)

// Plan returns what a deployment would change. It waits for a running operation of CloudFormation, and creates a change
// set, which Apply executes and Discard deletes.
func (r *Deployment) Plan(ctx context.Context) (p Plan, err error) {
	now, err := r.currentStack(ctx)
	if err != nil {
		return p, err
	}
	var dead *awsadmin.Stack
	var before map[string]string
	if now != nil {
		before = now.Parameters // also those of a stack that must be deleted
		switch c := before["Cluster"]; {
		case now.RollbackFailed():
			return p, fmt.Errorf("the rollback of stack %s has failed: %s: finish it with aws cloudformation "+
				"continue-update-rollback --stack-name %s --region %s, then run this again",
				now.Name, now.Reason, now.Name, r.Spec.Region)
		case c != "" && c != r.Spec.Cluster:
			return p, fmt.Errorf("stack %s belongs to the cluster %s, not to %s", now.Name, c, r.Spec.Cluster)
		case now.MustBeDeleted():
			dead, now = now, nil
		}
	}
	p.Parameters, p.KeptParameters = r.Spec.StackParameters(r.Template, before), r.Spec.keptParameters(before)
	t, err := r.packagedTemplate()
	if err != nil {
		return p, err
	}
	uploaded, err := r.planObjects(ctx, &p, t)
	if err != nil {
		return p, err
	}
	var taken existing
	if now == nil {
		if taken, err = r.findExisting(ctx, dead); err == nil {
			err = taken.err()
		}
		if err != nil {
			return p, err
		}
	}
	stack := change.Change{Verb: change.Create, Kind: kindStack, Name: StackName(r.Spec.Cluster),
		Why: "the function and its resources"}
	if dead != nil {
		why := "creating it has failed (" + dead.Status + "), so it must be deleted first"
		for name := range r.Template.Secret {
			if _, given := r.Spec.Overrides[name]; before[name] != "" && !given {
				why += "; set " + name + " again, if you had set it"
			}
		}
		p.add(change.Delete, kindStack, dead.Name, why,
			func(ctx context.Context, r *Deployment) error { return r.deleteStack(ctx, *dead) })
	}
	taken.deleteLog(&p)
	planned := dead == nil && taken.log == nil                        // CloudFormation refuses what still exists
	if planned && (uploaded || len(t.text) <= awsadmin.MaxTemplate) { // a longer one is planned after its upload
		if p.changeSet, err = r.createChangeSet(ctx, t, uploaded, p.Parameters, now); err != nil {
			return p, err
		}
	}
	changeSet := p.changeSet
	execute := func(ctx context.Context, r *Deployment) error { return r.execute(ctx, changeSet) }
	if r.ResolvePending != nil || !uploaded || !planned {
		execute = func(ctx context.Context, r *Deployment) error { return r.recreateAndExecute(ctx, changeSet, before) }
	}
	execute = retryPassing(execute, changeSet.Changes, before)
	switch {
	case changeSet.Empty:
		stack.Verb, execute = change.Keep, nil
	case now != nil:
		stack.Verb, stack.Diff = change.Update, parameterDiff(now.Parameters, p.Parameters, r.Template)
	}
	p.addChange(stack, execute)
	for _, c := range changeSet.Changes {
		p.addChange(resourceChange(c), nil)
	}
	return p, nil
}

// Stack returns the stack, also if creating it has failed; nil if there is none.
func (r *Deployment) Stack(ctx context.Context) (*awsadmin.Stack, error) {
	s, err := r.AWS.Stack(ctx, StackName(r.Spec.Cluster))
	if err != nil || s == nil || s.InReview() {
		return nil, err
	}
	return s, nil
}

// waitForStack returns the stack once no operation is in progress; nil if there is none.
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

// currentStack is waitForStack, but deletes a stack that has only change sets of ours.
func (r *Deployment) currentStack(ctx context.Context) (*awsadmin.Stack, error) {
	now, err := r.waitForStack(ctx)
	if err != nil || now == nil || !now.InReview() {
		return now, err
	}
	_, others, err := r.AWS.ChangeSets(ctx, *now)
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("stack %s has the pending change set %s of somebody else: execute or delete it in "+
			"CloudFormation, and run this again", now.Name, strings.Join(others, ", "))
	}
	return nil, r.deleteStack(ctx, *now)
}

// planObjects plans the bucket with the code and the template, and reports whether the template is there.
func (r *Deployment) planObjects(ctx context.Context, p *Plan, t packagedTemplate) (uploaded bool, err error) {
	w, name := r.Spec, r.Spec.bucket()
	b, err := r.AWS.Bucket(ctx, name, w.Account, iam.TagManagedBy, iam.ManagedBy)
	if err != nil {
		return false, err
	}
	var keys []string
	if b.Exists {
		if keys, err = r.AWS.Objects(ctx, name, w.Account, w.folder()); err != nil {
			return false, err
		}
	}
	switch why := "for the code and the template; private"; {
	case b.Foreign():
		p.add(change.Keep, KindBucket, name, "for the code and the template; somebody else has created it, so its settings stay", nil)
	case b.Exists:
		p.add(change.Keep, KindBucket, name, why, nil)
	default:
		p.addCall(change.Create, KindBucket, name, why, awsadmin.CreateBucket(name, w.Region))
	}
	if !b.Foreign() && !b.Private {
		p.addCall(change.Create, "S3 public access block", name, "", awsadmin.BlockPublicAccess(name, w.Account))
	}
	if !b.Foreign() && !b.TLSOnly {
		p.addCall(change.Create, "S3 bucket policy", name, "requires TLS",
			awsadmin.PutBucketPolicy(name, w.Account, w.bucketPolicy()))
	}
	if !b.Foreign() && !b.Ours {
		tags := map[string]string{}
		maps.Copy(tags, w.Tags)
		tags[iam.TagManagedBy] = iam.ManagedBy
		p.addCall(change.Tag, KindBucket, name, "", awsadmin.TagBucket(name, w.Account, tags))
	}
	for _, o := range []struct {
		key, what string
		content   []byte
	}{{w.key(), "the function's code", w.Code}, {t.key, "the stack's template", []byte(t.text)}} {
		why := fmt.Sprintf("%s, %d KB", o.what, (len(o.content)+1023)/1024)
		if uploaded = slices.Contains(keys, o.key); uploaded {
			p.add(change.Keep, kindObject, o.key, why, nil)
		} else {
			p.addCall(change.Create, kindObject, o.key, why, awsadmin.PutObject(name, w.Account, o.key, o.content))
		}
	}
	return uploaded, nil
}

// packagedTemplate is the template with the code's location, and where it is uploaded.
type packagedTemplate struct{ text, key, url string }

func (r *Deployment) packagedTemplate() (t packagedTemplate, err error) {
	w := r.Spec
	if w.Overrides["NotifyUrl"] != "" && slices.Contains(lackDestinations, w.Region) {
		return t, fmt.Errorf("--set NotifyUrl: EventBridge has no API destinations in %s: omit it, and subscribe the receiver "+
			"to the stack's topic instead", w.Region)
	}
	t.text, err = r.Template.packaged(w.bucket(), w.key(), w.Region)
	t.key = w.folder() + "template-" + shortHash([]byte(t.text)) + ".yaml"
	t.url = "https://" + w.bucket() + ".s3." + w.Region + ".amazonaws.com" + w.domainSuffix() + "/" + t.key
	return t, err
}

// createChangeSet uses the template in the bucket once it is there, since CloudFormation limits the size of others.
func (r *Deployment) createChangeSet(ctx context.Context, t packagedTemplate, uploaded bool, parameters map[string]string,
	now *awsadmin.Stack) (p awsadmin.ChangeSet, err error) {
	spec := awsadmin.StackSpec{Name: StackName(r.Spec.Cluster), Template: t.text, Parameters: parameters,
		Tags: r.Spec.Tags}
	if uploaded {
		spec.Template, spec.URL = "", t.url
	}
	p, err = r.AWS.CreateChangeSet(ctx, spec, now)
	r.pending = p
	var refused *awsadmin.RefusedError
	if errors.As(err, &refused) {
		return p, r.Spec.refusal(refused)
	}
	return p, err
}

// recreateAndExecute plans the stack again, since the template was not uploaded before, or the first plan could not: the
// stack had to be deleted, or a parameter was not known.
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
	t, err := r.packagedTemplate()
	if err != nil {
		return err
	}
	p, err := r.createChangeSet(ctx, t, true, r.Spec.StackParameters(r.Template, before), now)
	if err != nil || p.Empty {
		return err
	}
	if len(old.Changes) > 0 && r.ResolvePending == nil && !reflect.DeepEqual(p.Changes, old.Changes) {
		return errors.Join(fmt.Errorf("the stack has changed since the plan was shown: run this again"), r.discard(ctx, p))
	}
	return r.execute(ctx, p)
}

// execute executes a change set, and waits for CloudFormation.
func (r *Deployment) execute(ctx context.Context, p awsadmin.ChangeSet) error {
	return r.follow(ctx, p.Stack, func() error {
		r.pending = awsadmin.ChangeSet{}
		return r.AWS.Execute(ctx, p)
	})
}

func (r *Deployment) deleteStack(ctx context.Context, s awsadmin.Stack) error {
	return r.follow(ctx, s, func() error { return r.AWS.DeleteStack(ctx, s) })
}

// Discard deletes the plan's change set.
func (r *Deployment) Discard(ctx context.Context, p Plan) error { return r.discard(ctx, p.changeSet) }

func (r *Deployment) discard(ctx context.Context, p awsadmin.ChangeSet) error {
	if p.ID == "" || p.Empty {
		return nil
	}
	r.pending = awsadmin.ChangeSet{}
	return r.AWS.Discard(ctx, p)
}

// follow starts an operation and waits for its end. A rollback is a *FailedError.
func (r *Deployment) follow(ctx context.Context, s awsadmin.Stack, start func() error) error {
	before, err := r.AWS.LastEventID(ctx, s)
	if err != nil {
		return err
	}
	if err := start(); err != nil {
		return err
	}
	var causes []string
	after, err := r.AWS.Follow(ctx, s, before, func(e awsadmin.StackEvent) {
		if e.Failed() && e.LogicalID != s.Name && e.Reason != "" {
			causes = append(causes, e.LogicalID+" ("+e.Type+"): "+e.Reason)
			if name := awsadmin.TakenName(e.Reason); name != "" && r.Spec.removal(e.Type, name) != "" {
				causes[len(causes)-1] += "\n    to delete it, run " + r.Spec.removal(e.Type, name)
			}
		}
		r.Say(e)
	})
	if err != nil || slices.Contains([]string{"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}, after.Status) {
		return err
	}
	return &FailedError{Stack: after, Causes: causes}
}

// FailedError means that CloudFormation has failed and rolled back.
type FailedError struct {
	Stack  awsadmin.Stack
	Causes []string // in order
}

// passes reports whether all causes pass by themselves, and how long that takes.
func (e *FailedError) passes() (after time.Duration, passes bool) {
	for _, cause := range e.Causes {
		one, is := awsadmin.Passes(cause)
		if !is {
			return 0, false
		}
		after = max(after, one)
	}
	return after, len(e.Causes) > 0 && slices.Contains([]string{"ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}, e.Stack.Status)
}

func (e *FailedError) Error() string {
	because := e.Stack.Reason
	if len(e.Causes) > 0 {
		because = strings.Join(e.Causes, "\n  ")
	}
	happened, advice := "CloudFormation has left stack %s in "+e.Stack.Status, "see the CloudFormation console"
	switch fix := "fix that and run this again"; e.Stack.Status {
	case "ROLLBACK_COMPLETE":
		happened, advice = "creating stack %s failed and was rolled back", fix
	case "UPDATE_ROLLBACK_COMPLETE":
		happened, advice = "updating stack %s failed and was rolled back: the function runs as before", fix
	case "DELETE_FAILED":
		happened, advice = "deleting stack %s failed", fix
	case "UPDATE_ROLLBACK_FAILED":
		happened = "updating stack %s failed, and so did the rollback"
		advice = "fix that and run aws cloudformation continue-update-rollback --stack-name " + e.Stack.Name
	}
	return fmt.Sprintf(happened, e.Stack.Name) + ", because\n  " + because + "\n" + advice
}

// resourceChange is the row of a resource of the stack.
func resourceChange(c awsadmin.StackChange) change.Change {
	verbs := map[string]change.Verb{"Add": change.Create, "Remove": change.Delete}
	out := change.Change{Part: true, Verb: cmp.Or(verbs[c.Action], change.Update), Name: c.LogicalID,
		Kind: typeName(c.Type)}
	if c.Name != "" && out.Verb != change.Create {
		out.Name = c.LogicalID + " (" + arnName(c.Name) + ")"
	}
	if out.Verb == change.Update {
		out.Why = strings.Join(c.Properties, ", ")
		if c.Replaced {
			out.Why = strings.TrimPrefix(out.Why+"; may be replaced", "; ")
		}
	}
	return out
}

// arnName returns the last part of an ARN or a URL.
func arnName(name string) string { return name[strings.LastIndexAny(name, ":/")+1:] }

// parameterDiff returns the parameters that change.
func parameterDiff(before, after map[string]string, t *Template) (lines []string) {
	value := func(of map[string]string, name string) string {
		v, ok := of[name]
		if d := t.Defaults[name]; !ok && d != nil {
			v = *d
		}
		if t.Secret[name] && v != "" && v != awsadmin.HiddenValue {
			v = "(new)"
		}
		return name + "=" + v
	}
	for _, name := range slices.Sorted(maps.Keys(t.Defaults)) {
		if was, is := value(before, name), value(after, name); was != is {
			lines = append(lines, fmt.Sprintf("- %.80s", was), fmt.Sprintf("+ %.80s", is)) // a CA is long
		}
	}
	return lines
}

// Removal is what to delete: our lifecycle hooks and the stack, then the code if nothing else needs it.
type Removal struct {
	Stack, Code Plan
}

func (r *Deployment) PlanRemoval(ctx context.Context) (p Removal, err error) {
	s, err := r.waitForStack(ctx)
	if err != nil {
		return p, err
	}
	var handled []string
	if s != nil {
		handled = awsadmin.List(s.Parameters["Hooks"])
	}
	if err := r.planHookRemoval(ctx, &p.Stack, handled); err != nil {
		return p, err
	}
	if s != nil {
		p.Stack.add(change.Delete, kindStack, s.Name, "with all its resources, including queues and log group",
			func(ctx context.Context, r *Deployment) error { return r.deleteStack(ctx, *s) })
		resources, err := r.AWS.StackResources(ctx, s.ID)
		if err != nil {
			return p, err
		}
		for _, one := range resources {
			p.Stack.addChange(resourceChange(awsadmin.StackChange{StackResource: one, Action: "Remove"}), nil)
		}
	}
	if s == nil {
		if err := r.planLogRemoval(ctx, &p.Stack); err != nil {
			return p, err
		}
	}
	w, name := r.Spec, r.Spec.bucket()
	b, err := r.AWS.Bucket(ctx, name, w.Account, iam.TagManagedBy, iam.ManagedBy)
	if err != nil || !b.Exists {
		return p, err
	}
	all, err := r.AWS.Objects(ctx, name, w.Account, "")
	if err != nil {
		return p, err
	}
	for _, key := range all {
		if strings.HasPrefix(key, w.folder()) {
			p.Code.addCall(change.Delete, kindObject, key, "the function's code or template",
				awsadmin.DeleteObject(name, w.Account, key))
		}
	}
	switch {
	case !b.Ours:
		p.Code.add(change.Leave, KindBucket, name, "it lacks the tag of kops-spot, so somebody else has created it", nil)
	case len(p.Code.Changes) < len(all):
		p.Code.add(change.Leave, KindBucket, name, "other functions' code is there", nil)
	default:
		p.Code.addCall(change.Delete, KindBucket, name, "no other function's code is there",
			awsadmin.DeleteBucket(name, w.Account))
	}
	return p, nil
}
