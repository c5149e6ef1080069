// Package change is the installer's vocabulary: what it would change and why, and what a check has found.
package change

// Verb is what is done about a thing.
type Verb string

const (
	Create Verb = "create"
	Update Verb = "change"
	Keep   Verb = "keep" // it is as it should be already
	Delete Verb = "delete"
	Leave  Verb = "leave" // it is not ours to touch, or must stay for somebody else
)

// Change is one step of a plan: what is done about one thing, and why. It is data: who carries a plan out looks at Kind
// and Name.
type Change struct {
	Verb Verb   `json:"verb"`
	Kind string `json:"kind"` // as its owner calls it: "IAM role", "ConfigMap"
	Name string `json:"name"`
	Why  string `json:"why,omitempty"`

	// Diff is how an Update changes it: lines that begin with "+ ", "- " or two spaces.
	Diff []string `json:"diff,omitempty"`
}

// Changes reports whether carrying the step out writes anything.
func (c Change) Changes() bool { return c.Verb == Create || c.Verb == Update || c.Verb == Delete }

// Plan is the steps in the order in which they are carried out. Each may be carried out again: a plan that was broken off is
// made anew from what is there.
type Plan []Change

// Empty reports whether there is nothing to change.
func (p Plan) Empty() bool {
	for _, c := range p {
		if c.Changes() {
			return false
		}
	}
	return true
}

// Count is how many steps have the verb.
func (p Plan) Count(v Verb) int {
	n := 0
	for _, c := range p {
		if c.Verb == v {
			n++
		}
	}
	return n
}
