package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// applyResult is the output of a command that applies changes.
type applyResult struct {
	Cluster     string           `json:"cluster"`
	Account     string           `json:"account"`
	Region      string           `json:"region"`
	Plan        change.Plan      `json:"plan"`
	Applied     bool             `json:"applied"`
	AccessKeyID string           `json:"access_key_id,omitempty"`
	Findings    change.Findings  `json:"findings,omitempty"`
	Credentials *awsadmin.NewKey `json:"credentials,omitempty"`
}

// errUnfinished is the error of a command whose check found a failure and printed it.
var errUnfinished = errors.New("not all checks passed: see above")

// proposal is what a command would change, and how.
type proposal struct {
	question string
	plan     change.Plan
	apply    func(ctx context.Context) error
	discard  func(ctx context.Context) error // called if the plan is not applied; may be nil
	check    func(ctx context.Context) (change.Findings, error)
	always   bool // check also if there is nothing to change
}

// planAndApply shows the plan, asks for confirmation, applies it and checks the result.
func (c *console) planAndApply(ctx context.Context, env onboard.Environment, p proposal) (applyResult, error) {
	result := applyResult{Cluster: env.Cluster, Account: env.Account, Region: env.Region, Plan: p.plan}
	err := term.Plan(c.stderr, p.plan, c.options(c.stderr))
	if err == nil && !p.plan.Empty() {
		err = c.ask(ctx, p.question)
	}
	if err != nil && p.discard != nil {
		err = errors.Join(err, p.discard(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return result, err
	}
	if !p.plan.Empty() {
		var failed *install.FailedError // describes the state itself
		if err := p.apply(ctx); errors.As(err, &failed) {
			return result, err
		} else if err != nil {
			return result, fmt.Errorf("%w; the changes made so far stay: run this again to continue", err)
		}
		result.Applied = true
	}
	if result.Applied || p.always {
		result.Findings, err = p.check(ctx)
	}
	return result, err
}

// applyOnboarding plans, applies and checks an onboarding or offboarding.
func (c *console) applyOnboarding(ctx context.Context, r *onboard.Onboarding, question string,
	plan func(context.Context) (onboard.Plan, error)) (applyResult, error) {
	p, err := plan(ctx)
	if err != nil {
		return applyResult{}, err
	}
	c.printTarget(r.Spec.Environment)
	result, err := c.planAndApply(ctx, r.Spec.Environment, proposal{question: question, plan: p.Changes,
		apply: func(ctx context.Context) error { return r.Apply(ctx, p) },
		check: func(ctx context.Context) (change.Findings, error) { return r.Check(ctx, plan) }})
	result.Findings = append(result.Findings, p.Changes.Reviews()...)
	return result, err
}

// printTarget prints where the changes would be made, and as whom.
func (c *console) printTarget(env onboard.Environment) {
	c.say(term.Mind, "cluster %s in account %s, region %s, as %s", env.Cluster, env.Account, env.Region, env.Caller)
}

// withPermissionHint adds what to do about a missing permission.
func withPermissionHint(err error) error {
	if errors.Is(err, awsadmin.ErrOverruled) {
		return fmt.Errorf("%w; if it requires a permissions boundary or tags, add --set PermissionsBoundary=ARN or "+
			"--tag KEY=VALUE", err)
	}
	if errors.Is(err, awsadmin.ErrDenied) {
		return fmt.Errorf("%w: kops-spot onboard --export-installer-policy prints the IAM policy that you need", err)
	}
	return err
}

// export writes files to a directory and prints their paths. pending means that the cluster's token secret, which they
// refer to, does not exist yet.
func (c *console) export(dir string, files map[string][]byte, pending bool, cluster string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("creating the directory: %w: choose another with --export", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("exporting: %w: choose another directory with --export", err)
		}
		fmt.Fprintln(c.stdout, path)
	}
	if pending {
		c.say(term.Mind, "the files refer to the secret %s, which does not exist yet; AWS chooses the end of its ARN "+
			"(-AbCdEf in the files): create the secret, as kops-spot grant does, and export again", onboard.TokenSecret(cluster))
	}
	return nil
}
