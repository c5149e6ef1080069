// Package change is the installer's vocabulary: the rows of a plan, their writes, and the findings of a check.
package change

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
	Review     Verb = "review" // somebody else has granted it
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
}

// Apply carries out the steps in order. An error names the row that failed.
func Apply[By any](ctx context.Context, by By, steps []Step[By]) error {
	for _, s := range steps {
		if s.Write == nil {
			continue
		}
		if err := s.Write(ctx, by); err != nil {
			return fmt.Errorf("%s: %w", s.Row(), err)
		}
	}
	return nil
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
