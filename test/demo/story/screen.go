// Package story is what the demo and its preview have in common: who takes part, and how what they do is shown.
package story

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Intro says what is real in the demo, and what is played.
const Intro = `One Spot instance is taken away, and kops-spot clears its node in time.

  real    Kubernetes' API server, controllers and scheduler; the function's own binary
          with its shipped permissions, in a local Lambda service
  played  EC2 and its Auto Scaling groups, and the machines: their kubelets start and
          stop pods, with grace periods, but without containers

Watch the time: EC2 gives two minutes. Ctrl-C ends it all.

`

// Next says what to try after the demo.
const Next = `
what next

  other warnings   cd test && go run ./demo -kind stop, or hibernate; -node NAME for another node
  how it decides   docs/how-it-works.md
  your cluster     README.md: first in observe mode, which tells what it would do and changes nothing
`

// Hibernated explains what looks like a failure, and is one for the pod that stays.
const Hibernated = `
  Hibernation begins at once: each pod is asked once, and a budget that refuses is not argued with.
`

// Screen is where the demo shows things. It is safe for concurrent use.
type Screen struct {
	Color bool

	mu    sync.Mutex
	w     io.Writer
	event time.Time
}

// NewScreen is a screen that writes to w.
func NewScreen(w io.Writer) *Screen { return &Screen{w: w, Color: color(w)} }

// Write makes it a writer for what others show.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// A show that nobody sees any more goes on to its end all the same: there is no better place for these errors.
func (s *Screen) Text(text string) { _, _ = io.WriteString(s, text) }

func (s *Screen) Line(format string, args ...any) { s.Text(fmt.Sprintf(format, args...) + "\n") }

// Begin sets the moment from which seconds are counted.
func (s *Screen) Begin(event time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event = event
}

// Live shows something at the moment it happens: who, and what.
func (s *Screen) Live(who, format string, args ...any) { s.liveAt(time.Now(), who, format, args...) }

func (s *Screen) liveAt(t time.Time, who, format string, args ...any) {
	s.mu.Lock()
	event := s.event
	s.mu.Unlock()
	if event.IsZero() {
		return // the curtain is down
	}
	at := fmt.Sprintf("%+7.2f s", t.Sub(event).Seconds())
	s.Line("%s  %-8s  %s", s.Paint(Faint, at), who, fmt.Sprintf(format, args...))
}

// color says whether the text goes to a terminal whose user wants colour.
func color(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// The colours, as a terminal knows them.
const (
	Red    = "31"
	Green  = "32"
	Yellow = "33"
	Faint  = "2"
)

func (s *Screen) Paint(color, text string) string {
	if !s.Color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Short is a node's or an instance's name, as long as one needs to tell it from the others here.
func Short(name string) string {
	name, _, _ = strings.Cut(name, ".")
	const idLength = len("i-0123456")
	if strings.HasPrefix(name, "i-") && len(name) > idLength {
		return name[:idLength]
	}
	return name
}

// Wrap breaks a line of JSON between its fields.
func Wrap(json []byte, width int) []string {
	var lines []string
	line := ""
	for i, field := range strings.Split(string(json), `,"`) {
		if i > 0 {
			line, field = line+",", `"`+field
		}
		if line != "" && len(line)+len(field) > width {
			lines, line = append(lines, line), " "
		}
		line += field
	}
	return append(lines, line)
}
