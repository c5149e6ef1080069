package change

import "slices"

// Level is how grave a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, and somebody should know
	Fail Level = "fail"
)

// Finding is what one look at the world has found.
type Finding struct {
	Level  Level  `json:"level"`
	Name   string `json:"name"`             // what was looked at
	Detail string `json:"detail"`           // what was found
	Advice string `json:"advice,omitempty"` // what to do; never empty for Fail
}

// Findings are in the order in which they were made.
type Findings []Finding

// Failed reports whether any of them is a failure.
func (f Findings) Failed() bool {
	return slices.ContainsFunc(f, func(one Finding) bool { return one.Level == Fail })
}

// First is the first failure's name: the one to mend first, since what comes after may follow from it; empty if there is
// none.
func (f Findings) First() string {
	for _, one := range f {
		if one.Level == Fail {
			return one.Name
		}
	}
	return ""
}
