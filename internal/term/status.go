package term

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Status is what runs, and what has come of the last interruptions.
type Status struct {
	Cluster  string         `json:"cluster"`
	Account  string         `json:"account"`
	Region   string         `json:"region"`
	Function string         `json:"function"`
	CLI      string         `json:"cli"`             // the version of this program
	Stack    string         `json:"stack,omitempty"` // its status; empty if there is none
	Since    time.Time      `json:"since,omitzero"`  // when it was last changed
	State    string         `json:"state"`           // the function's
	Mode     string         `json:"mode"`
	Program  string         `json:"program,omitempty"` // the function's version, by its last self-check
	Ready    string         `json:"ready,omitempty"`   // what that has found
	Checked  *time.Time     `json:"checked,omitempty"` // and when
	Outcomes []spot.Outcome `json:"outcomes"`          // the latest first

	// Looked is how far was looked back.
	Looked struct {
		Back time.Duration `json:"back"` // nanoseconds
	} `json:"looked"`
}

// stamp is a moment to the second, everywhere the same.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// ShowStatus shows it.
func ShowStatus(w io.Writer, s Status, o Options) error {
	p := &page{color: o.Color}
	version := cmp.Or(s.Program, "unknown: no self-check was heard of")
	if s.Program != "" && s.Program != s.CLI {
		version += ", and this program is " + s.CLI
	}
	rows := [][]string{{"cluster", fmt.Sprintf("%s in account %s, region %s", s.Cluster, s.Account, s.Region)},
		{"function", fmt.Sprintf("%s, %s, mode %s", s.Function, s.State, s.Mode)}, {"version", version}}
	if s.Stack != "" {
		rows = append(rows, []string{"stack", fmt.Sprintf("%s since %s", s.Stack, stamp(s.Since))})
	} else {
		rows = append(rows, []string{"stack", "none of that name: the function was made otherwise"})
	}
	if s.Checked != nil {
		rows = append(rows, []string{"self-check", fmt.Sprintf("%s at %s", s.Ready, stamp(*s.Checked))})
	}
	p.table("", rows)
	p.line("")
	if len(s.Outcomes) == 0 {
		p.line("no interruptions in the last %s", lengthOf(s.Looked.Back))
	} else {
		var table [][]string
		for _, out := range s.Outcomes {
			table = append(table, []string{stamp(out.Event.Time), string(out.Result), string(out.Event.Kind), cmp.Or(out.Node, out.Event.Instance), out.Reason})
		}
		p.line("the last interruptions")
		p.table("  ", table)
	}
	return p.send(w, "the status")
}

// lengthOf is a length of time as people say it.
func lengthOf(d time.Duration) string {
	if h := int(d.Hours()); d == time.Duration(h)*time.Hour {
		return fmt.Sprintf("%d hours", h)
	}
	return d.String()
}
