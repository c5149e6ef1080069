// Package change is the installer's vocabulary: the rows of a plan, their writes, and the findings of a check.
package change

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Verb is what a row does.
type Verb string

const (
	Create     Verb = "create"
	Update     Verb = "change"
	Attach     Verb = "attach"
	Tag        Verb = "tag"
	Store      Verb = "store"
	Delete     Verb = "delete"
	Detach     Verb = "detach"
	Deactivate Verb = "deactivate"
	Untag      Verb = "untag"
	Keep       Verb = "keep"   // it is up to date
	Leave      Verb = "leave"  // it is not ours, or still needed
	Review     Verb = "review" // it is not ours, and somebody has to look at it
)

// Change is a row of a plan: what happens to one resource, and why. A row that changes something is one write.
type Change struct {
	Verb Verb   `json:"verb"`
	Kind string `json:"kind"` // "IAM role", "ConfigMap"
	Name string `json:"name"`
	Why  string `json:"why,omitempty"`

	// Part marks what CloudFormation does in the write of the last row that is not a part.
	Part bool `json:"part,omitempty"`

	// Diff has lines that begin with "+ ", "- " or two spaces.
	Diff []string `json:"diff,omitempty"`
}

// Row returns the row for an error.
func (c Change) Row() string { return string(c.Verb) + " " + c.Kind + " " + c.Name }

// Changes reports whether the row changes anything.
func (c Change) Changes() bool { return c.Verb != Keep && c.Verb != Leave && c.Verb != Review }

// Plan is the rows in order. After an interruption, a new plan has the rest.
type Plan []Change

// Empty reports whether there is nothing to change.
func (p Plan) Empty() bool { return !slices.ContainsFunc(p, Change.Changes) }

// Reviews returns a warning for each row that somebody has to review.
func (p Plan) Reviews() (all Findings) {
	for _, c := range p {
		if c.Verb == Review {
			all = append(all, Finding{Level: Warn, Name: c.Kind + " " + c.Name, Detail: c.Why})
		}
	}
	return all
}

// AWS shows a change only after some seconds.
const (
	settleLimit = 20 * time.Second
	settlePoll  = 2 * time.Second
)

// Settle plans until there is nothing to change, or for 20 s, and returns the last plan.
func Settle(ctx context.Context, plan func(context.Context) (Plan, error)) (p Plan, err error) {
	for began := time.Now(); ; {
		if p, err = plan(ctx); err != nil || p.Empty() || time.Since(began) >= settleLimit {
			return p, err
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return p, nil
		}
	}
}

// Count returns the number of rows with the verb.
func (p Plan) Count(v Verb) (n int) {
	for _, c := range p {
		if c.Verb == v {
			n++
		}
	}
	return n
}

// Step is a row with its write by a By.
type Step[By any] struct {
	Change
	Write func(ctx context.Context, by By) error // nil if the row changes nothing

	// Of is what the step is a part of, such as a user. If a step fails, the later ones of the same, and those After it,
	// are skipped. A step without it depends on all earlier steps.
	Of    string
	After []string
}

// Of sets what the steps are a part of, and what else they depend on.
func Of[By any](steps []Step[By], of string, after ...string) []Step[By] {
	for i := range steps {
		steps[i].Of, steps[i].After = of, after
	}
	return steps
}

// Apply carries out the steps in order. If one fails, only the steps that do not depend on it follow; none if the
// connection is lost. The error names the rows that failed.
func Apply[By any](ctx context.Context, by By, steps []Step[By]) error {
	var errs []error
	failed := map[string]bool{}
	for _, s := range steps {
		if s.Write == nil {
			continue
		}
		needs := append([]string{s.Of, ""}, s.After...)
		if s.Of == "" && len(errs) > 0 || slices.ContainsFunc(needs, func(of string) bool { return failed[of] }) {
			failed[s.Of] = true
			continue
		}
		err := s.Write(ctx, by)
		if err == nil {
			continue
		}
		errs, failed[s.Of] = append(errs, fmt.Errorf("%s: %w", s.Row(), err)), true
		if lost := (*url.Error)(nil); ctx.Err() != nil || errors.As(err, &lost) {
			break
		}
	}
	return errors.Join(errs...)
}

// PlanOf returns the rows of the steps.
func PlanOf[By any](steps []Step[By]) (plan Plan) {
	for _, s := range steps {
		plan = append(plan, s.Change)
	}
	return plan
}

// Level is the severity of a finding.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is the result of one check.
type Finding struct {
	Level  Level  `json:"level"`
	Name   string `json:"name"`             // of the check
	Detail string `json:"detail"`           // the result
	Advice string `json:"advice,omitempty"` // what to do; never empty for Fail
}

// Findings are in the order of the checks.
type Findings []Finding

// Failed reports whether a check has failed.
func (f Findings) Failed() bool {
	return slices.ContainsFunc(f, func(one Finding) bool { return one.Level == Fail })
}

// First returns the name of the first failed check, which may cause the later ones; empty for none.
func (f Findings) First() string {
	for _, one := range f {
		if one.Level == Fail {
			return one.Name
		}
	}
	return ""
}

// plain matches words that a shell does not change.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// Command returns a command for a shell to show, with its words quoted where necessary.
func Command(words ...string) string {
	var quoted []string
	for _, w := range words {
		if !plain.MatchString(w) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}
