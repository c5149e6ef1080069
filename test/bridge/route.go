package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/test/bridge/pattern"
)

// rule is one as moto holds it.
type rule struct {
	name, arn string
	state     types.RuleState
	pattern   string // empty if the rule has only a schedule
}

func (r rule) disabled() bool { return r.state == types.RuleStateDisabled }

// unwanted says why the rule does not want the event, and nothing if it does.
func (r rule) unwanted(a arrival) string {
	if r.disabled() {
		return "the rule is disabled"
	}
	p, err := pattern.Parse([]byte(r.pattern))
	if err != nil {
		return err.Error()
	}
	matches, err := p.Matches(a.body)
	switch {
	case err != nil:
		return err.Error()
	case !matches:
		return "the pattern does not match"
	}
	return ""
}

// route asks every rule of the bus, and tries the targets of those that want the event. An error is moto's.
func (b *Bridge) route(ctx context.Context, a arrival) error {
	rules, err := b.rules(ctx, a)
	var none *types.ResourceNotFoundException
	if errors.As(err, &none) {
		// EventBridge takes such an event, and drops it.
		b.journal.add(Delivery{EventID: a.ID, Reason: "there is no event bus " + a.bus})
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.pattern == "" {
			continue
		}
		if why := r.unwanted(a); why != "" {
			b.journal.add(Delivery{EventID: a.ID, Rule: r.arn, Reason: why})
			continue
		}
		if err := b.toTargets(ctx, r, a); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) rules(ctx context.Context, a arrival) ([]rule, error) {
	var rules []rule
	client, in := b.moto.events(a.Region), &eventbridge.ListRulesInput{EventBusName: &a.bus}
	for {
		out, err := client.ListRules(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing the rules of bus %s: %w", a.bus, err)
		}
		for _, r := range out.Rules {
			rules = append(rules, rule{name: *r.Name, arn: *r.Arn, state: r.State, pattern: aws.ToString(r.EventPattern)})
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return rules, nil
		}
	}
}

func (b *Bridge) targets(ctx context.Context, r rule, a arrival) ([]types.Target, error) {
	var targets []types.Target
	client, in := b.moto.events(a.Region), &eventbridge.ListTargetsByRuleInput{Rule: &r.name, EventBusName: &a.bus}
	for {
		out, err := client.ListTargetsByRule(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing the targets of %s: %w", r.arn, err)
		}
		targets = append(targets, out.Targets...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return targets, nil
		}
	}
}

// toTargets tries each target of a rule once, and leaves to the background what is worth another try.
func (b *Bridge) toTargets(ctx context.Context, r rule, a arrival) error {
	targets, err := b.targets(ctx, r, a)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		b.journal.add(Delivery{EventID: a.ID, Rule: r.arn, Reason: "the rule has no target"})
	}
	for _, t := range targets {
		b.deliver(ctx, &job{Bridge: b, rule: r, target: t, arrival: a})
	}
	return nil
}
