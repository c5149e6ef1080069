package install

import (
	"cmp"
	"context"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Removal is what is to be taken away: the stack, and when nothing needs it any more the code.
type Removal struct {
	Role        string // the name of the role that the function ran with; empty if there is no stack
	Stack, Code Plan
}

// PlanRemoval says what there is of a deployment: the stack with all that it has, and the code.
func (r *Deployment) PlanRemoval(ctx context.Context) (p Removal, err error) {
	s, err := r.waitForStack(ctx)
	if err != nil {
		return p, err
	}
	if s != nil {
		p.Role = RoleOf(s.Parameters)
		p.Stack.add(change.Change{Verb: change.Delete, Kind: kindStack, Name: s.Name,
			Why: "with all that it has, the queues and the log too"},
			func(ctx context.Context, r *Deployment) error { return r.deleteStack(ctx, *s) })
		resources, err := r.AWS.StackResources(ctx, s.ID)
		if err != nil {
			return p, err
		}
		for _, one := range resources {
			p.Stack.add(resourceChange(awsadmin.StackChange{StackResource: one, Action: "Remove"}), nil)
		}
	}
	w := r.Spec
	b, err := r.AWS.Bucket(ctx, w.bucket(), w.Account, iam.TagManagedBy, iam.ManagedBy)
	if err != nil || !b.There {
		return p, err
	}
	all, err := r.AWS.Objects(ctx, w.bucket(), w.Account, "")
	if err != nil {
		return p, err
	}
	for _, key := range all {
		if strings.HasPrefix(key, w.folder()) {
			p.Code.act(change.Delete, kindCode, key, "the function's code", awsadmin.DeleteObject(w.bucket(), w.Account, key))
		}
	}
	switch {
	case !b.Ours:
		p.Code.add(change.Change{Verb: change.Leave, Kind: KindBucket, Name: w.bucket(),
			Why: "it does not carry the tag of kops-spot: somebody else has made it"}, nil)
	case len(p.Code.Changes) < len(all):
		p.Code.add(change.Change{Verb: change.Leave, Kind: KindBucket, Name: w.bucket(),
			Why: "other clusters' functions have their code there"}, nil)
	default:
		p.Code.act(change.Delete, KindBucket, w.bucket(), "no other cluster's function has its code there",
			awsadmin.DeleteBucket(w.bucket(), w.Account))
	}
	return p, nil
}

// RoleOf is the name of the role of a function whose stack has these parameters.
func RoleOf(parameters map[string]string) string {
	if arn := parameters["FunctionRoleArn"]; arn != "" {
		return arnName(arn)
	}
	return cmp.Or(parameters["FunctionRoleName"], iam.FunctionRole)
}
