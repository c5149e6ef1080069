package iamflow

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

func TestASecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(clusterA)
	before := w.snapshot()
	w.onboard(clusterA, node, nil)
	first := w.Written()
	if len(first) < 10 {
		t.Errorf("the first run has written only %q: is the proxy in the way?", first)
	}
	w.Reset()
	r := w.run(clusterA, node, nil)
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !p.Changes.Empty() {
		t.Errorf("the second plan is not empty: %+v", p.Changes)
	}
	if err := r.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if again := w.Written(); len(again) > 0 {
		t.Errorf("the second run has written: %q", again)
	}

	w.offboard(clusterA, node)
	w.isAsItWas(before)
}

// plans are all that the product can make for an account: what is there before, what is wanted, and how the plan is
// made.
var plans = map[string]struct {
	before func(w *world, node string)
	change func(*onboard.Want)
	plan   func(*onboard.Run, context.Context) (onboard.Planned, error)
}{
	"fresh":      {plan: (*onboard.Run).Plan},
	"the guide":  {plan: (*onboard.Run).Plan, change: func(want *onboard.Want) { want.Permissions = onboard.Guide }},
	"taken over": {plan: (*onboard.Run).Plan, before: func(w *world, _ string) { w.original(clusterA, 5) }},
	"rotate key": {plan: (*onboard.Run).Plan, change: rotating,
		before: func(w *world, node string) { w.onboard(clusterA, node, nil) }},
	"five versions": {plan: (*onboard.Run).Plan, before: (*world).fiveVersions},
	"offboard":      {plan: (*onboard.Run).PlanRemoval, before: (*world).fiveVersions},
	"offboard --original": {plan: (*onboard.Run).PlanOriginal, before: func(w *world, _ string) {
		w.originalFunction()
		w.originalPolicy(3)
	}},
}

// fiveVersions onboards a cluster, whose policy somebody has then written otherwise until there was no room for
// another version.
func (w *world) fiveVersions(node string) {
	w.onboard(clusterA, node, nil)
	for range 4 {
		must(w.iam().CreatePolicyVersion(w.Context(), &awsiam.CreatePolicyVersionInput{SetAsDefault: true,
			PolicyArn:      aws.String("arn:aws:iam::" + w.account + ":policy/" + iam.ManagedPolicy.Name),
			PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`)}))
	}
}

// TestBrokenOffAnywhereItConverges cuts each plan off at each of its writes, and repeats the run: the account must
// come out as it does in one go. A write is carried out and its answer is lost: to be cut off before the next one
// leaves the same. Each row is one write, and the error names the row.
func TestBrokenOffAnywhereItConverges(t *testing.T) {
	for name, c := range plans {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := func() (*world, *onboard.Run, onboard.Planned) {
				w := newWorld(t)
				node := w.cluster(clusterA)
				if c.before != nil {
					c.before(w, node)
				}
				r := w.run(clusterA, node, c.change)
				p := must(c.plan(r, t.Context()))
				w.Reset()
				return w, r, p
			}
			w, r, p := begin()
			rows := changing(p.Changes)
			if err := r.Apply(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			writes, want := w.Written(), w.alike()
			if len(writes) != len(rows) || len(rows) < 2 {
				t.Fatalf("%d rows and %d writes:\n%s\n%q", len(rows), len(writes), strings.Join(rows, "\n"), writes)
			}
			for n, action := range writes {
				w, r, p := begin()
				w.CutOff(n + 1)
				row := changing(p.Changes)[n]
				if action == "secretsmanager:PutSecretValue" { // found to be stored: the next write is the first that fails
					row = changing(p.Changes)[n+1]
				}
				if err := r.Apply(t.Context(), p); err == nil || !strings.HasPrefix(err.Error(), row+": ") {
					t.Errorf("broken off at %s, the error does not name the row %q: %v", action, row, err)
				}
				w.Reset()
				if err := r.Apply(t.Context(), must(c.plan(r, t.Context()))); err != nil {
					t.Fatalf("broken off at %s, the next run: %v", action, err)
				}
				if d := difference(want, w.alike()); d != "" {
					t.Fatalf("broken off at %s, it comes out otherwise than in one go:\n%s", action, d)
				}
				if p := must(c.plan(r, t.Context())); !p.Changes.Empty() {
					t.Errorf("broken off at %s and repeated, this is left: %q", action, changing(p.Changes))
				}
			}
		})
	}
}

// changing are the rows of a plan that change something, as an error names them.
func changing(plan change.Plan) (rows []string) {
	for _, c := range plan {
		if c.Changes() {
			rows = append(rows, c.Row())
		}
	}
	return rows
}

var vpcID = regexp.MustCompile(`vpc-[0-9a-f]+`)

// alike is a snapshot without what differs from account to account.
func (w *world) alike() string {
	w.Helper()
	return vpcID.ReplaceAllString(strings.ReplaceAll(alike(w.snapshot()), w.account, "ACCOUNT"), "vpc-…")
}
