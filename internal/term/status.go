package term

import (
	"cmp"
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Stamp formats a time to the second.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Status shows facts about the function and the outcomes since a time.
func Status(w io.Writer, facts [][]string, outcomes []spot.Outcome, since time.Time, o Options) error {
	p := &page{color: o.Color}
	p.table("", facts)
	if len(outcomes) == 0 {
		p.line("\nno interruptions since %s", Stamp(since))
		return p.send(w, "the status")
	}
	var rows [][]string
	for _, out := range outcomes {
		rows = append(rows, []string{Stamp(out.Event.Time), string(out.Result), string(out.Event.Kind),
			cmp.Or(out.Node, out.Event.Instance), out.Reason})
	}
	p.line("\nrecent interruptions")
	p.table("  ", rows)
	return p.send(w, "the status")
}
