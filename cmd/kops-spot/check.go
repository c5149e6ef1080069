package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

func checkCommand(c *console) *cobra.Command {
	var o deployment
	cmd := &cobra.Command{
		Use:   "check",
		Short: "looks at every link between a warning and a drained node",
		Long: "check looks at every link: rule, state, target, permission, function, role, network, log-in, rights in the cluster, and\n" +
			"has the function plan what it would do about a made-up warning. It changes nothing. Mend the first one that is broken:\n" +
			"what comes after may follow from it.\n\n" +
			"With --pre it says, before anything is installed, what install has found out and would do",
		Example: "  kops-spot check\n  kops-spot check --pre --set Mode=observe",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.check(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.BoolVar(&o.pre, "pre", false, "before install: look whether it could do its work")
	return cmd
}

// checkTold is what check tells, for a program to read.
type checkTold struct {
	Cluster  string          `json:"cluster"`
	Account  string          `json:"account"`
	Region   string          `json:"region"`
	OK       bool            `json:"ok"`
	First    string          `json:"first,omitempty"` // the first link that is broken
	Findings change.Findings `json:"findings"`
}

func (c *console) check(ctx context.Context, o deployment) error {
	if o.pre {
		return c.checkBefore(ctx, o)
	}
	if len(o.set) > 0 || o.code != "" || o.refresh || o.karpenter {
		return errors.New("--set, --code, --refresh and --karpenter are for check --pre: what is installed is looked at as it is")
	}
	at, err := c.stand(ctx, o.site)
	if err != nil {
		return err
	}
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return err
	}
	found, err := at.chain(template).Check(ctx)
	if err != nil { // of what was found before, all is true
		return errors.Join(term.Findings(c.stderr, found, options(c.environ, c.stderr)), err)
	}
	return c.tellChecked(at.env, found, "an event goes all the way")
}

func (c *console) checkBefore(ctx context.Context, o deployment) error {
	on, err := c.prepare(ctx, o)
	if err != nil {
		return err
	}
	g := on.env
	found := append(change.Findings{{Level: change.OK, Name: "cluster", Detail: fmt.Sprintf("%s in account %s, region %s, VPC %s, as %s", g.Cluster, g.Account, g.Region, g.VPC, g.Caller)}},
		on.found.Findings...)
	found = append(found, change.Finding{Level: change.OK, Name: "log-in", Detail: "the function is to log in by " + on.how.Login + ", as the role " + on.role})
	if on.noCode != nil {
		found = append(found, change.Finding{Level: change.Fail, Name: "code", Detail: on.noCode.Error(), Advice: "build it, or name it with --code"})
	}
	limits, err := on.chain(on.runner.Template).CheckConcurrency(ctx)
	if err != nil {
		return err
	}
	found = append(found, limits...)
	original, err := originalIsThere(ctx, on.account)
	if err != nil {
		return err
	}
	return c.tellChecked(g, append(found, original...), "kops-spot install could do its work")
}

// tellChecked is the result of looking at each link.
func (c *console) tellChecked(g onboard.Environment, found change.Findings, good string) error {
	first := found.First()
	told := checkTold{Cluster: g.Cluster, Account: g.Account, Region: g.Region,
		OK: !found.Failed(), First: first, Findings: found}
	return c.conclude(told, found, good,
		fmt.Errorf("%s is broken: mend it first, as is said above, and check again", first))
}
