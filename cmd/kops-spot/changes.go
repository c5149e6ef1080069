package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// changed is what a command that changes something tells in the end.
type changed struct {
	Cluster     string           `json:"cluster"`
	Account     string           `json:"account"`
	Region      string           `json:"region"`
	Plan        change.Plan      `json:"plan"`
	Applied     bool             `json:"applied"`
	AccessKeyID string           `json:"accessKeyId,omitempty"`
	Findings    change.Findings  `json:"findings,omitempty"`
	Credentials *awsadmin.NewKey `json:"credentials,omitempty"`
}

// errUnfinished is why a command fails that has shown already what is not as it should be.
var errUnfinished = errors.New("not all of it is as it should be: see what is said above")

// A proposal is what a command would change, and how.
type proposal struct {
	question string
	plan     change.Plan
	apply    func(ctx context.Context) error
	forget   func(ctx context.Context) error // instead of apply, though ctx has ended; nil if there is nothing to forget
	check    func(ctx context.Context, applied bool) (change.Findings, error)
}

// carryOut shows the plan, asks, applies it, and checks.
func (c *console) carryOut(ctx context.Context, g onboard.Environment, p proposal) (changed, error) {
	told := changed{Cluster: g.Cluster, Account: g.Account, Region: g.Region, Plan: p.plan}
	err := term.Plan(c.stderr, p.plan, options(c.environ, c.stderr))
	if err == nil && !p.plan.Empty() {
		err = c.ask(ctx, p.question)
	}
	if err != nil && p.forget != nil {
		err = errors.Join(err, p.forget(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return told, err
	}
	if !p.plan.Empty() {
		var ended *install.FailedError // which says itself what there is now
		if err := p.apply(ctx); errors.As(err, &ended) {
			return told, err
		} else if err != nil {
			return told, fmt.Errorf("%w; what was done before stays, and the next run goes on from there", err)
		}
		told.Applied = true
	}
	told.Findings, err = p.check(ctx, told.Applied)
	return told, err
}

// carryOutInAccount carries out what onboarding, or offboarding, would change.
func (c *console) carryOutInAccount(ctx context.Context, r *onboard.Onboarding, question string,
	plan func(context.Context) (onboard.Plan, error)) (changed, error) {
	p, err := plan(ctx)
	if err != nil {
		return changed{}, err
	}
	c.sayWhere(r.Spec.Environment)
	return c.carryOut(ctx, r.Spec.Environment, proposal{question: question, plan: p.Changes,
		apply: func(ctx context.Context) error { return r.Apply(ctx, p) },
		check: func(ctx context.Context, applied bool) (change.Findings, error) {
			if !applied {
				return nil, nil
			}
			return r.Check(ctx, plan)
		}})
}

// sayWhere tells what is going to be changed, and as whom, before the plan.
func (c *console) sayWhere(g onboard.Environment) {
	c.say(term.Mind, "cluster %s in account %s, region %s, as %s", g.Cluster, g.Account, g.Region, g.Caller)
}

// toldWhoMay says what to do about a permission that is missing.
func toldWhoMay(err error) error {
	if errors.Is(err, awsadmin.ErrDenied) {
		return fmt.Errorf("%w: kops-spot onboard --export-installer-policy prints all that whoever runs this needs", err)
	}
	return err
}

// exportFlag is where a command puts what it would write.
func exportFlag(f *pflag.FlagSet, dir *string) {
	f.StringVar(dir, "export", "", "write the documents and manifests to files in this `directory`, replacing files of the same names, and stop")
}

// export writes files into a directory, and says which. unmade is a secret that they name and that is not made yet.
func (c *console) export(dir string, files map[string][]byte, unmade string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory for what is exported: %w: choose another with --export", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			return fmt.Errorf("exporting: %w: choose another directory with --export", err)
		}
		fmt.Fprintln(c.stdout, path)
	}
	if unmade != "" {
		c.say(term.Mind, "these files name the secret %s, which is not made yet, and AWS makes up the end of its ARN (here -AbCdEf): "+
			"make the secret, and export again", unmade)
	}
	return nil
}
