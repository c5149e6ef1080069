package operator

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

func TestSecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	before := w.snapshot()
	w.onboard(cluster, node, nil)
	first := w.Written()
	if len(first) < 10 {
		t.Errorf("the first run wrote only %q", first)
	}
	w.Reset()
	r := w.run(cluster, node, nil)
	p := must(r.Plan(t.Context()))
	if !p.Changes.Empty() {
		t.Errorf("the second plan is not empty: %+v", p.Changes)
	}
	try(r.Apply(t.Context(), p))
	if again := w.Written(); len(again) > 0 {
		t.Errorf("the second run wrote %q", again)
	}

	w.offboard(cluster, node)
	w.unchanged("after offboarding", before)
}

// plans are all kinds of plans for an account, in sequence: the preparation, the spec and the planning method.
var plans = map[string][]struct {
	name   string
	before func(*world)
	change func(*onboard.Spec)
	plan   func(*onboard.Onboarding, context.Context) (onboard.Plan, error)
}{
	"an account": {
		{name: "fresh", plan: (*onboard.Onboarding).Plan},
		{name: "rotate key", plan: (*onboard.Onboarding).Plan, change: rotating},
		{name: "the guide", plan: (*onboard.Onboarding).Plan, change: func(want *onboard.Spec) { want.Permissions = onboard.Guide }},
		{name: "five versions", plan: (*onboard.Onboarding).Plan, before: (*world).fiveVersions},
		{name: "offboard", plan: (*onboard.Onboarding).PlanRemoval},
	},
	"the original's": {
		{name: "taken over", plan: (*onboard.Onboarding).Plan, before: func(w *world) { w.original(cluster, 5) }},
	},
	"the original": {
		{name: "offboard --original", plan: (*onboard.Onboarding).PlanOriginal, before: func(w *world) {
			w.originalFunction()
			w.originalPolicy(3)
		}},
	},
}

// TestInterruptedPlansConverge interrupts each plan at each of its writes, and continues with a new plan: it contains
// exactly the remaining rows, and the account ends in the same state as without interruptions. The write is made and
// its response is lost, which is equivalent to an interruption before the next write. Each row is one write, and the
// error names the row.
func TestInterruptedPlansConverge(t *testing.T) {
	t.Parallel()
	for name, plans := range plans {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole, interrupted := newWorld(t), newWorld(t)
			node, otherNode := whole.cluster(cluster), interrupted.cluster(cluster)
			for _, c := range plans {
				t.Run(c.name, func(t *testing.T) {
					whole, interrupted := whole.in(t), interrupted.in(t)
					if c.before != nil {
						c.before(whole)
						c.before(interrupted)
					}
					r := whole.run(cluster, node, c.change)
					p := must(c.plan(r, t.Context()))
					rows := whole.changing(p.Changes)
					whole.Reset()
					try(r.Apply(t.Context(), p))
					if writes := whole.Written(); len(writes) != len(rows) || len(rows) < 2 {
						t.Fatalf("%d rows and %d writes:\n%s\n%q", len(rows), len(writes), strings.Join(rows, "\n"), writes)
					}
					r = interrupted.run(cluster, otherNode, c.change)
					interrupted.interruptRows(rows, r, func() onboard.Plan { return must(c.plan(r, t.Context())) })
					if d := difference(whole.lines(whole.snapshot()), interrupted.lines(interrupted.snapshot())); d != "" {
						t.Errorf("the interrupted plan ends in another state:\n%s", d)
					}
				})
			}
		})
	}
}

// interruptRows applies a plan one write at a time.
func (w *world) interruptRows(rows []string, r *onboard.Onboarding, plan func() onboard.Plan) {
	w.Helper()
	for done := 0; done < len(rows); {
		p := plan()
		is := w.changing(p.Changes)
		orphans := len(is) - len(rows[done:]) // a key whose secret nobody has is deleted first
		if orphans < 0 || orphans > 1 || !slices.Equal(is[orphans:], rows[done:]) {
			w.Fatalf("after %q, the remaining rows are:\n%s", rows[:done], strings.Join(is, "\n"))
		}
		n := 1
		if orphans > 0 { // until another one is stored
			n = 3
		}
		w.Reset()
		w.CutOff(n)
		err := r.Apply(w.Context(), p)
		last := w.Written()[n-1]
		row := is[n-1]
		if last == "secretsmanager:PutSecretValue" { // found to be stored: the next write is the first that fails
			row = is[n]
		}
		if err == nil || !strings.HasPrefix(w.alike(err.Error()), row+": ") {
			w.Errorf("interrupted at %s, the error does not name the row %q: %v", last, row, err)
		}
		if done += n - orphans; last == "iam:CreateAccessKey" {
			done--
		}
		w.Reset()
	}
	r.Spec.RotateKey = false // or it would be done again
	if is := w.changing(plan().Changes); len(is) > 0 {
		w.Errorf("after all writes, the remaining rows are:\n%s", strings.Join(is, "\n"))
	}
}

// fiveVersions creates versions of the policy up to the limit.
func (w *world) fiveVersions() {
	for range 4 {
		must(w.iam().CreatePolicyVersion(w.Context(), &awsiam.CreatePolicyVersionInput{SetAsDefault: true,
			PolicyArn:      aws.String("arn:aws:iam::" + w.account + ":policy/" + iam.ManagedPolicy.Name),
			PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`)}))
	}
}

// changing returns the rows of a plan that change something, without values that differ between accounts.
func (w *world) changing(plan change.Plan) (rows []string) {
	for _, c := range plan {
		if c.Changes() {
			rows = append(rows, w.alike(c.Row()))
		}
	}
	return rows
}
