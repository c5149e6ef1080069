// Package onboard creates the identities and permissions of CAST AI and of the function for a cluster, in its AWS
// account and in the cluster itself, and removes them. docs/onboarding.md has the list.
//
// inspect reads the current State, decide and decideRemoval turn it into steps without side effects, and Apply carries
// them out.
package onboard

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
)

// Onboarding onboards or offboards a cluster. After an interruption, a new plan contains the rest.
type Onboarding struct {
	AWS     *awsadmin.Account
	Cluster dynamic.Interface
	Spec    Spec

	// Made is the access key that Apply has created, if any.
	Made *awsadmin.NewKey
}

// Plan is what to change, and the state it is based on.
type Plan struct {
	Changes change.Plan
	State   State
	Files   Files         // what the plan writes, for --export
	Login   FunctionLogin // how the function will authenticate
	steps   []step
}

type step = change.Step[*Onboarding]

// newStep is a row with its call.
func newStep(verb change.Verb, kind, name, why string, c awsadmin.Call) step {
	return step{Change: change.Change{Verb: verb, Kind: kind, Name: name, Why: why},
		Write: func(ctx context.Context, r *Onboarding) error { return r.AWS.Do(ctx, c) }}
}

func keep(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Keep, Kind: kind, Name: name, Why: why}}
}

func leave(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Leave, Kind: kind, Name: name, Why: why}}
}

// awsCLI returns a command of the AWS CLI for people.
func awsCLI(words ...string) string { return change.Command(append([]string{"aws"}, words...)...) }

// review is the row of what somebody else has added, with the command that removes it.
func review(kind, name string, remove ...string) step {
	return step{Change: change.Change{Verb: change.Review, Kind: kind, Name: name,
		Why: "somebody else has added it: if nobody needs it, run " + awsCLI(remove...)}}
}

// userIdentity is the user in the cluster. It gets access only with --user-is-master, since the guide's group can do
// everything.
func (r *Onboarding) userIdentity() identitymap.Identity {
	v := r.Spec.Environment.Values
	user := identitymap.Identity{Kind: identitymap.User, ARN: v.UserARN(), Username: iam.UserName(v.Cluster)}
	if r.Spec.UserIsMaster {
		user.Groups = []string{"system:masters"}
	}
	return user
}

// Plan returns what onboarding would change.
func (r *Onboarding) Plan(ctx context.Context) (p Plan, err error) {
	s, err := r.inspect(ctx)
	if err != nil {
		return p, err
	}
	access, token, err := r.planAccess(ctx, s, r.userIdentity())
	if err != nil {
		return p, err
	}
	files, err := r.Spec.documents(s, token)
	if err != nil {
		return p, err
	}
	maps.Copy(files, access.Files)
	steps, err := decide(r.Spec, s, files, access.steps, token)
	p = newPlan(s, steps, files)
	p.Login = access.Login
	return p, err
}

func clusterSteps(plan identitymap.Plan) []step {
	return change.Of(identitymap.Steps(plan, func(r *Onboarding) dynamic.Interface { return r.Cluster }), partCluster)
}

func newPlan(s State, steps []step, files Files) Plan {
	return Plan{State: s, steps: steps, Changes: change.PlanOf(steps), Files: files}
}

// Apply carries out a plan.
func (r *Onboarding) Apply(ctx context.Context, p Plan) error {
	if err := change.Apply(ctx, r, p.steps); err != nil {
		return err
	}
	r.Spec.RotateKey = false // so that Check does not plan another rotation
	return nil
}

// Check verifies that a new plan has nothing to change.
func (r *Onboarding) Check(ctx context.Context, plan func(context.Context) (Plan, error),
) (findings change.Findings, _ error) {
	rest, err := change.Settle(ctx, func(ctx context.Context) (change.Plan, error) {
		p, err := plan(ctx)
		return p.Changes, err
	})
	switch {
	case err != nil:
		return nil, err
	case rest.Empty():
		return change.Findings{{Level: change.OK, Name: "account " + r.Spec.Environment.Account,
			Detail: "everything is as planned"}}, nil
	}
	for _, c := range rest {
		if c.Changes() {
			findings = append(findings, change.Finding{Level: change.Fail, Name: c.Kind + " " + c.Name,
				Detail: fmt.Sprintf("still to %s: %s", c.Verb, c.Why), Advice: "run this again"})
		}
	}
	return findings, nil
}
