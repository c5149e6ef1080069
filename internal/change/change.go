// Package change is the installer's vocabulary: what it would change and why, and what a check has found.
package change

import "slices"

// Verb is what is done about a thing.
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
	Keep       Verb = "keep"  // it is as it should be already
	Leave      Verb = "leave" // it is not ours to touch, or must stay for somebody else
)

// Change is one row of a plan: what is done about one thing, and why. A row that changes something is one write.
type Change struct {
	Verb Verb   `json:"verb"`
	Kind string `json:"kind"` // as its owner calls it: "IAM role", "ConfigMap"
	Name string `json:"name"`
	Why  string `json:"why,omitempty"`

	// Part is what CloudFormation does in the one write of the row above that is no part.
	Part bool `json:"part,omitempty"`

	// Diff is how an Update changes it: lines that begin with "+ ", "- " or two spaces.
	Diff []string `json:"diff,omitempty"`
}

// Row is the row as an error names it.
func (c Change) Row() string { return string(c.Verb) + " " + c.Kind + " " + c.Name }

// Changes reports whether the row changes anything.
func (c Change) Changes() bool { return c.Verb != Keep && c.Verb != Leave }

// Plan is the rows in the order in which they are carried out. A plan that was broken off is made anew from what is
// there.
type Plan []Change

// Empty reports whether there is nothing to change.
func (p Plan) Empty() bool {
	return !slices.ContainsFunc(p, Change.Changes)
}

// Count is how many rows have the verb.
func (p Plan) Count(v Verb) int {
	n := 0
	for _, c := range p {
		if c.Verb == v {
			n++
		}
	}
	return n
}
