package install

import (
	"cmp"
	"context"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// Removal is what is to be taken away.
type Removal struct {
	Changes change.Plan
	Role    string // the name of the role that the function ran with; empty if there is no stack

	stack   *iamcloud.Stack
	objects []string
	bucket  bool
}

// PlanRemoval says what there is of a deployment: the stack with all that it has, and the code.
func (r *Run) PlanRemoval(ctx context.Context) (p Removal, err error) {
	if p.stack, err = r.atRest(ctx); err != nil {
		return p, err
	}
	if s := p.stack; s != nil {
		p.Role = RoleOf(s.Parameters)
		p.Changes = append(p.Changes, change.Change{Verb: change.Delete, Kind: kindStack, Name: s.Name, Why: "with all that it has, the queues and the log too"})
		resources, err := r.AWS.StackResources(ctx, s.ID)
		if err != nil {
			return p, err
		}
		for _, one := range resources {
			p.Changes = append(p.Changes, changeOf(iamcloud.StackChange{StackResource: one, Action: "Remove"}))
		}
	}
	w := r.Want
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
			p.objects = append(p.objects, key)
			p.Changes = append(p.Changes, change.Change{Verb: change.Delete, Kind: kindCode, Name: key, Why: "the function's code"})
		}
	}
	bucket := change.Change{Verb: change.Delete, Kind: KindBucket, Name: w.bucket(), Why: "no other cluster's function has its code there"}
	switch {
	case !b.Ours:
		bucket.Verb, bucket.Why = change.Leave, "it does not carry the tag of kops-spot: somebody else has made it"
	case len(p.objects) < len(all):
		bucket.Verb, bucket.Why = change.Leave, "other clusters' functions have their code there"
	default:
		p.bucket = true
	}
	p.Changes = append(p.Changes, bucket)
	return p, nil
}

// RoleOf is the name of the role of a function whose stack has these parameters.
func RoleOf(parameters map[string]string) string {
	if arn := parameters["FunctionRoleArn"]; arn != "" {
		return short(arn)
	}
	return cmp.Or(parameters["FunctionRoleName"], iam.FunctionRole)
}

// RemoveStack has CloudFormation take away what it has made.
func (r *Run) RemoveStack(ctx context.Context, p Removal) error {
	if p.stack == nil {
		return nil
	}
	return r.deleteStack(ctx, *p.stack)
}

// RemoveCode takes the code away, and the bucket if nobody else needs it. That the bucket has older versions of objects, as
// where somebody has switched versioning on, is iamcloud.ErrNotEmpty: it stays.
func (r *Run) RemoveCode(ctx context.Context, p Removal) error {
	var calls []iamcloud.Call
	for _, key := range p.objects {
		calls = append(calls, iamcloud.DeleteObject(r.Want.bucket(), r.Want.Account, key))
	}
	if p.bucket {
		calls = append(calls, iamcloud.DeleteBucket(r.Want.bucket(), r.Want.Account))
	}
	return r.do(ctx, calls)
}
