package term

import (
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Restoring shows what a node is to lose, and what speaks against it.
func Restoring(w io.Writer, node string, r spot.Restored, now time.Time, o Options) error {
	p := &page{color: o.Color}
	p.line("node %s is marked%s", node, ifNot(r.Event, " for the event ", ""))
	left := r.Deadline.Sub(now)
	switch {
	case r.Deadline.IsZero():
	case left > 0:
		p.line("%s its deadline is in %s: EC2 is still to take the machine, and the pods that come to it end with it",
			p.paint(Mind.color, Mind.sign), left.Round(time.Second))
	default:
		p.line("its deadline passed %s ago", (-left).Round(time.Second))
	}
	p.list("would be taken off", yellow, r.Removed)
	p.list("would stay, since somebody has changed it", faint, r.Changed)
	p.line("")
	return p.send(w, "what is to be restored")
}

func (p *page) list(heading string, c color, items []string) {
	if len(items) == 0 {
		return
	}
	p.heading(c, heading)
	for _, item := range items {
		p.line("    %s", item)
	}
}
