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

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// howToChange is how a command that changes something is told to go about it.
type howToChange struct {
	yes    bool
	output string
}

func (h *howToChange) flags(f *pflag.FlagSet) {
	f.BoolVarP(&h.yes, "yes", "y", false, "do not ask: for scripts")
	f.StringVarP(&h.output, "output", "o", asText, "the `form` of the result: "+asText+" or "+asJSON)
}

// changed is what a command that changes something tells in the end.
type changed struct {
	Cluster     string           `json:"cluster"`
	Account     string           `json:"account"`
	Region      string           `json:"region"`
	Plan        change.Plan      `json:"plan"`
	Applied     bool             `json:"applied"`
	AccessKeyID string           `json:"accessKeyId,omitempty"`
	Findings    change.Findings  `json:"findings,omitempty"`
	Credentials *iamcloud.NewKey `json:"credentials,omitempty"`
}

// errUnfinished is why a command fails that has shown already what is not as it should be.
var errUnfinished = errors.New("not all of it is as it should be: see what is said above")

// carryOut shows the plan, asks, has it applied, and checks.
func (c *console) carryOut(ctx context.Context, r *onboard.Run, h howToChange, question string, make func(context.Context) (onboard.Planned, error)) (changed, error) {
	g := r.Want.Ground
	told := changed{Cluster: g.Cluster, Account: g.Account, Region: g.Region}
	p, err := make(ctx)
	if err != nil {
		return told, toldWhoMay(err)
	}
	told.Plan = p.Changes
	c.sayWhere(g)
	if err := term.Plan(c.stderr, p.Changes, options(c.environ, c.stderr)); err != nil {
		return told, err
	}
	if p.Changes.Empty() {
		return told, nil
	}
	if err := c.ask(ctx, question, h.yes); err != nil {
		return told, err
	}
	if err := r.Apply(ctx, p); err != nil {
		return told, fmt.Errorf("%w; what was done before stays, and the next run goes on from there", toldWhoMay(err))
	}
	told.Applied = true
	told.Findings, err = r.Check(ctx, make)
	return told, toldWhoMay(err)
}

// sayWhere tells what is going to be changed, and as whom, before the plan.
func (c *console) sayWhere(g onboard.Ground) {
	c.say(term.Mind, "cluster %s in account %s, region %s, as %s", g.Cluster, g.Account, g.Region, g.Caller)
}

// tell is the result, in the form that was asked for.
func (c *console) tell(h howToChange, told changed, text string) error {
	if h.output == asJSON {
		if err := c.json(told); err != nil {
			return err
		}
	} else {
		if err := term.Findings(c.stdout, told.Findings, options(c.environ, c.stdout)); err != nil {
			return err
		}
		if !told.Findings.Failed() {
			c.result(term.Good, "%s", text)
		}
	}
	if told.Findings.Failed() {
		return errUnfinished
	}
	return nil
}

// toldWhoMay says what to do about a permission that is missing.
func toldWhoMay(err error) error {
	if errors.Is(err, iamcloud.ErrDenied) {
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
