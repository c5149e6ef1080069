package onboard

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/castai/kops-spot/internal/identitymap"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Run is one onboarding, or offboarding, of a cluster: a plan is made of what is there, and then carried out. A run that was
// broken off is repeated: its plan has what is left.
type Onboarding struct {
	AWS     *awsadmin.Account
	Cluster dynamic.Interface
	Spec    Spec

	// Made is the access key that was made, if one was.
	Made *awsadmin.NewKey
}

// Plan is what is to be done, and was found.
type Plan struct {
	Changes change.Plan
	State   State
	Files   Files // what a plan that gives rights would write, for --export
	steps   []step
}

// mapping is who is to be let into the cluster. The user is only where that was asked for: the guide's group may do
// everything there.
func (r *Onboarding) mapping(s State) identitymap.Mapping {
	m, v := r.functionMapping(s.RoleName), r.Spec.Environment.Values
	user := identitymap.Identity{Kind: identitymap.User, ARN: v.UserARN(), Username: iam.UserName(v.Cluster)}
	if r.Spec.UserIsMaster {
		user.Groups = []string{"system:masters"}
	}
	m.Identities = append(m.Identities, user)
	return m
}

// Plan says what onboarding would change.
func (r *Onboarding) Plan(ctx context.Context) (Plan, error) {
	s, err := Inspect(ctx, r.AWS, r.Spec.Environment.Cluster)
	if err != nil {
		return Plan{}, err
	}
	var inCluster []step
	var token *tokenSync
	var manifests Files
	if r.Cluster != nil {
		plan, err := r.mapping(s).Plan(ctx, r.Cluster)
		if err != nil {
			return Plan{}, err
		}
		inCluster, manifests = clusterSteps(plan), plan.Files
		if plan.NeedsToken {
			token = &tokenSync{tokenLabel(plan.TokenUID())}
		}
	}
	files, err := r.Spec.documents(s, token)
	if err != nil {
		return Plan{}, err
	}
	maps.Copy(files, manifests)
	steps, err := decide(r.Spec, s, files, inCluster, token)
	return r.planned(s, steps, files), err
}

// clusterSteps are the steps of an identity mapping plan.
func clusterSteps(plan identitymap.Plan) (steps []step) {
	for _, s := range plan.Steps() {
		one := step{Change: s.Change}
		if s.Write != nil {
			one.Write = func(ctx context.Context, r *Onboarding) error { return s.Write(ctx, r.Cluster) }
		}
		steps = append(steps, one)
	}
	return steps
}

func (r *Onboarding) planned(s State, steps []step, files Files) Plan {
	return Plan{State: s, steps: steps, Changes: change.PlanOf(steps), Files: files}
}

// Apply carries a plan out.
func (r *Onboarding) Apply(ctx context.Context, p Plan) error {
	if err := change.Apply(ctx, r, p.steps); err != nil {
		return err
	}
	r.Spec.RotateKey = false // it has been: a check must not ask for another
	return nil
}

const (
	// What was written in IAM is read by everybody within seconds, and not before.
	checkLimit = 20 * time.Second
	checkPause = 2 * time.Second
)

// Check looks whether all is as it should be, by asking what would still be changed.
func (r *Onboarding) Check(ctx context.Context, plan func(context.Context) (Plan, error),
) (findings change.Findings, _ error) {
	var p Plan
	var err error
	_ = wait.PollUntilContextTimeout(ctx, checkPause, checkLimit, true, func(ctx context.Context) (bool, error) {
		p, err = plan(ctx)
		return err != nil || p.Changes.Empty(), nil
	})
	switch {
	case err != nil:
		return nil, err
	case p.Changes.Empty():
		return change.Findings{{Level: change.OK, Name: "account " + r.Spec.Environment.Account,
			Detail: "all of it is as planned"}}, nil
	}
	for _, c := range p.Changes {
		if c.Changes() {
			findings = append(findings, change.Finding{Level: change.Fail, Name: c.Kind + " " + c.Name,
				Detail: fmt.Sprintf("is still to %s: %s", c.Verb, c.Why), Advice: "run this again"})
		}
	}
	return findings, nil
}
