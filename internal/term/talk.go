package term

import (
	"fmt"
	"io"
	"strings"
)

// Mark is what a line is about, at a glance.
type Mark struct {
	sign  string
	color color
}

// The three marks.
var (
	Good = Mark{"✔", green}
	Mind = Mark{"!", yellow}
	Bad  = Mark{"✗", red}
)

// Say writes one thing to say, behind its mark; of more lines than one, all begin where the first does. What cannot be
// written is lost: there is nobody else to tell.
func Say(w io.Writer, m Mark, text string, o Options) {
	p := page{color: o.Color}
	fmt.Fprintf(w, "%s %s\n", p.paint(m.color, m.sign), strings.ReplaceAll(text, "\n", "\n  "))
}
