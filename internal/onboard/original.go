package onboard

import (
	"context"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// original is the function that kops-spot replaces, with all that belongs to it alone. It was one for all clusters of a region.
type original struct {
	function *awsadmin.Function
	rules    []awsadmin.Rule
	role     *awsadmin.Role // what it runs as, if that is the original's too
	policy   *awsadmin.Policy
}

// Original looks for the function that kops-spot replaces; nil if it is not there.
func Original(ctx context.Context, aws *awsadmin.Account) (*awsadmin.Function, error) {
	return aws.Function(ctx, originalFunction)
}

// PlanOriginal says what is to be deleted of the original.
func (r *Onboarding) PlanOriginal(ctx context.Context) (Plan, error) {
	s, err := Inspect(ctx, r.AWS, r.Spec.Environment.Cluster)
	if err != nil {
		return Plan{}, err
	}
	o := original{policy: s.Managed}
	if o.function, err = Original(ctx, r.AWS); err != nil || o.function == nil {
		return r.planned(s, o.steps(s, nil), nil), err
	}
	if o.rules, err = r.AWS.RulesFor(ctx, o.function.ARN); err != nil {
		return Plan{}, err
	}
	if o.role, err = r.AWS.Role(ctx, o.function.Role); err != nil {
		return Plan{}, err
	}
	functions, err := r.AWS.Functions(ctx)
	return r.planned(s, o.steps(s, functions), nil), err
}

// steps takes the rules away first, so that nothing fails, and the function last: by it a run that was broken off finds the
// rest.
func (o original) steps(s State, functions []awsadmin.Function) (steps []step) {
	if o.function != nil {
		for _, rule := range o.rules {
			steps = append(steps, o.removeRule(rule)...)
		}
		steps = append(steps, o.removeRole(functions)...)
		steps = append(steps, newStep(change.Delete, kindFunction, o.function.Name,
			"the function that kops-spot replaces, for all clusters of the region",
			awsadmin.DeleteFunction(o.function.Name)))
	}
	if p := o.policy; p != nil && p.Tags[iam.TagManagedBy] != iam.ManagedBy {
		if used := append(withPrefix("user", p.Users), append(withPrefix("role", p.Roles), withPrefix("group", p.Groups)...)...); len(used) > 0 {
			return append(steps, leave(kindPolicy, p.Name, "it is of "+joinAnd(used)+": onboard takes it over"))
		}
		steps = append(steps, deletePolicy(p, "nobody has it")...)
	}
	return steps
}

// removeRule takes the function out of a rule, and the rule away if that was all it was for.
func (o original) removeRule(rule awsadmin.Rule) []step {
	var ids, others []string
	for _, t := range rule.Targets {
		if strings.HasPrefix(t.ARN, o.function.ARN) {
			ids = append(ids, t.ID)
		} else {
			others = append(others, t.ARN)
		}
	}
	out, away := awsadmin.RemoveTargets(rule.Name, ids), awsadmin.DeleteRule(rule.Name)
	if len(others) > 0 {
		return []step{newStep(change.Update, kindRule, rule.Name, "the function is no target of its any more; "+joinAnd(others)+
			" stays", out)}
	}
	return []step{newStep(change.Update, kindRule, rule.Name, "the function is no target of its any more", out),
		newStep(change.Delete, kindRule, rule.Name, "the function was its only target", away)}
}

func (o original) removeRole(functions []awsadmin.Function) []step {
	switch {
	case o.role == nil:
		return nil
	case o.role.Tags[iam.TagManagedBy] == iam.ManagedBy:
		return []step{leave(kindRole, o.role.Name, "it is kops-spot's: offboard takes it away")}
	case !strings.EqualFold(o.role.Name, iam.FunctionRole):
		return []step{leave(kindRole, o.role.Name, "the function runs with it, and it does not have the name of the original's: "+
			"delete it if nobody needs it")}
	}
	return deleteRole(o.role, functions, "as whom the function ran", o.function.Name)
}
