package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

const kindLog = "log group"

// existing are the resources that have names of the template although the stack does not exist.
type existing struct {
	log    *awsadmin.LogGroup // it is deleted: an invocation after the last uninstall has created it
	others change.Findings    // failures: somebody has to decide
}

// findExisting looks for such resources before CloudFormation does. It does not look for those that no invocation and no
// other installation of the function creates: CloudFormation names them when it plans the stack. dead is the stack that
// must be deleted; nil for none.
func (r *Deployment) findExisting(ctx context.Context, dead *awsadmin.Stack) (e existing, err error) {
	f, err := r.AWS.Function(ctx, iam.FunctionName(r.Spec.Cluster))
	if err != nil {
		return e, err
	}
	if f != nil {
		if err := r.addExisting(ctx, &e, dead, "AWS::Lambda::Function", f.Name); err != nil {
			return e, err
		}
	}
	for _, event := range r.Template.Events {
		rule, err := r.AWS.Rule(ctx, iam.RuleName(r.Spec.Cluster, event.Name))
		if err != nil {
			return e, err
		}
		if rule != nil {
			if err := r.addExisting(ctx, &e, dead, "AWS::Events::Rule", rule.Name); err != nil {
				return e, err
			}
		}
	}
	return e, r.findLog(ctx, &e, dead)
}

func (r *Deployment) findLog(ctx context.Context, e *existing, dead *awsadmin.Stack) error {
	log, err := r.AWS.LogGroup(ctx, iam.LogGroup(r.Spec.Cluster))
	if err != nil || log == nil {
		return err
	}
	f, owned, err := r.taken(ctx, dead, "AWS::Logs::LogGroup", log.Name)
	switch {
	case f != nil && owned:
		e.others = append(e.others, *f)
	case f != nil:
		e.log = log
	}
	return err
}

// planLogRemoval deletes a log group that a late invocation has created again, but not that of a function.
func (r *Deployment) planLogRemoval(ctx context.Context, p *Plan) error {
	f, err := r.AWS.Function(ctx, iam.FunctionName(r.Spec.Cluster))
	if err != nil {
		return err
	}
	if f != nil {
		p.add(change.Leave, "Lambda function", f.Name, "no stack of that name exists, so somebody else has created it", nil)
		return nil
	}
	var taken existing
	if err := r.findLog(ctx, &taken, nil); err != nil {
		return err
	}
	taken.deleteLog(p)
	return nil
}

// addExisting adds a resource, unless our own stack has it.
func (r *Deployment) addExisting(ctx context.Context, e *existing, dead *awsadmin.Stack, kind, name string) error {
	f, _, err := r.taken(ctx, dead, kind, name)
	if f != nil {
		e.others = append(e.others, *f)
	}
	return err
}

// taken returns the finding about an existing resource, and whether a stack owns it; nil if our own stack has it.
func (r *Deployment) taken(ctx context.Context, dead *awsadmin.Stack, kind, name string) (
	f *change.Finding, owned bool, err error) {
	owner, err := r.AWS.StackOf(ctx, name)
	if err != nil || dead != nil && owner == dead.Name {
		return nil, true, err
	}
	f = &change.Finding{Level: change.Fail, Name: typeName(kind) + " " + name, Detail: "it exists, and no stack owns it",
		Advice: "if nobody needs it, run " + r.Spec.removal(kind, name) + " and run this again"}
	if owner != "" {
		f.Detail = "it belongs to the stack " + owner
		f.Advice = "update that stack with sam deploy, or delete it with " +
			change.Command("aws", "cloudformation", "delete-stack", "--stack-name", owner, "--region", r.Spec.Region) +
			" and run this again"
	}
	return f, owner != "", nil
}

// err is the error for the resources that somebody has to decide about.
func (e existing) err() error {
	var all []error
	for _, f := range e.others {
		all = append(all, fmt.Errorf("%s: %s: %s", f.Name, f.Detail, f.Advice))
	}
	return errors.Join(all...)
}

// deleteLog adds the row that deletes the log group.
func (e existing) deleteLog(p *Plan) {
	if e.log != nil {
		p.addCall(change.Delete, kindLog, e.log.Name, e.lostLog(), awsadmin.DeleteLogGroup(e.log.Name))
	}
}

func (e existing) lostLog() string {
	why := "no stack owns it; a late invocation may have created it"
	if e.log.Last.IsZero() {
		return why + "; it is empty"
	}
	return fmt.Sprintf("%s; %d KB, last event at %s", why, (e.log.Bytes+1023)/1024,
		e.log.Last.UTC().Format("2006-01-02 15:04:05 MST"))
}

// CheckNames returns the findings about names of the template that are taken although the stack does not exist.
func (r *Deployment) CheckNames(ctx context.Context) (change.Findings, error) {
	now, err := r.AWS.Stack(ctx, StackName(r.Spec.Cluster))
	if err != nil || now != nil && !now.InReview() && !now.MustBeDeleted() {
		return nil, err
	}
	e, err := r.findExisting(ctx, now)
	if err != nil {
		return nil, err
	}
	if e.log != nil {
		e.others = append(e.others, change.Finding{Level: change.Warn, Name: kindLog, Detail: e.log.Name + ": " + e.lostLog(),
			Advice: "install deletes it: export what you need first"})
	}
	return e.others, nil
}

// typeName is a type of CloudFormation for people: "Logs LogGroup".
func typeName(kind string) string {
	return strings.ReplaceAll(strings.TrimPrefix(kind, "AWS::"), "::", " ")
}

// removal is the command that deletes a resource of one of the template's types; empty for others. name is its name,
// ARN or URL.
func (w Spec) removal(kind, name string) string {
	words := map[string][]string{
		"AWS::Logs::LogGroup":   {"logs", "delete-log-group", "--log-group-name", name},
		"AWS::Lambda::Function": {"lambda", "delete-function", "--function-name", name},
		"AWS::IAM::Role":        {"iam", "delete-role", "--role-name", arnName(name)},
		"AWS::SQS::Queue":       {"sqs", "delete-queue", "--queue-url", w.queueURL(arnName(name))},
		"AWS::SNS::Topic": {"sns", "delete-topic", "--topic-arn",
			"arn:" + w.Partition + ":sns:" + w.Region + ":" + w.Account + ":" + arnName(name)},
		"AWS::CloudWatch::Alarm":     {"cloudwatch", "delete-alarms", "--alarm-names", arnName(name)},
		"AWS::CloudWatch::Dashboard": {"cloudwatch", "delete-dashboards", "--dashboard-names", arnName(name)},
		"AWS::Events::Rule":          {"events", "delete-rule", "--name", arnName(name)},
	}[kind]
	if words == nil {
		return ""
	}
	command := change.Command(append([]string{"aws"}, append(words, "--region", w.Region)...)...)
	switch kind {
	case "AWS::IAM::Role":
		command += " (after its policies)"
	case "AWS::Events::Rule":
		command += " (after its targets: aws events remove-targets)"
	}
	return command
}

func (w Spec) queueURL(name string) string {
	return "https://sqs." + w.Region + ".amazonaws.com" + w.domainSuffix() + "/" + w.Account + "/" + name
}

// domainSuffix is what follows amazonaws.com in the partition.
func (w Spec) domainSuffix() string { return map[string]string{"aws-cn": ".cn"}[w.Partition] }

// refusal explains why CloudFormation refuses the stack, and what to do.
func (w Spec) refusal(e *awsadmin.RefusedError) error {
	if len(e.Invalid) == 0 {
		return fmt.Errorf("%w\nif a parameter is wrong, set it with --set NAME=VALUE and run this again; "+
			"docs/stack.md describes the parameters", e)
	}
	why, advice := "", "\nfix that and run this again"
	for _, i := range e.Invalid {
		line := i.LogicalID + " (" + i.Type + "): " + i.Reason
		if awsadmin.TakenName(i.Reason) != "" {
			line = i.LogicalID + ": " + typeName(i.Type) + " " + i.Name + " already exists"
			advice = "\nif nobody needs what exists, delete it and run this again"
			if remove := w.removal(i.Type, i.Name); remove != "" {
				line += ": " + remove
			}
		}
		why += "\n  " + line
	}
	refused := *e
	refused.Reason = "early validation has failed"
	return fmt.Errorf("%w%s%s", &refused, why, advice)
}

// retryPassing repeats an operation on the stack that has failed only because AWS was not yet ready for it, once: the
// rollback has taken longer than IAM needs. It stops if somebody changes the stack meanwhile, or if the stack would no
// longer change as shown.
func retryPassing(operation func(context.Context, *Deployment) error, shown []awsadmin.StackChange, before map[string]string,
) func(context.Context, *Deployment) error {
	return func(ctx context.Context, r *Deployment) error {
		err := operation(ctx, r)
		var failed *FailedError
		if !errors.As(err, &failed) {
			return err
		}
		after, passes := failed.passes()
		if !passes {
			return err
		}
		last, unknown := r.AWS.LastEventID(ctx, failed.Stack)
		if unknown != nil {
			return errors.Join(err, unknown)
		}
		r.Say(awsadmin.StackEvent{LogicalID: failed.Stack.Name, Status: "RETRY",
			Reason: fmt.Sprintf("that passes within seconds: trying again in %s", after)})
		if ended := awsadmin.Pause(ctx, after); ended != nil {
			return errors.Join(err, ended)
		}
		switch now, unknown := r.AWS.LastEventID(ctx, failed.Stack); {
		case unknown != nil:
			return errors.Join(err, unknown)
		case now != last:
			return errors.Join(err, errors.New("somebody has changed the stack since then: run this again to see the new plan"))
		}
		if failed.Stack.MustBeDeleted() {
			if err := r.deleteStack(ctx, failed.Stack); err != nil {
				return err
			}
		}
		return r.recreateAndExecute(ctx, awsadmin.ChangeSet{Changes: shown}, before)
	}
}
