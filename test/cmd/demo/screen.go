package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const intro = `One Spot instance is taken away, and kops-spot clears its node in time.

  real    Kubernetes' API server, controllers and scheduler; the function's own binary
          with its shipped permissions, in a local Lambda service
  played  EC2 and its Auto Scaling groups, and the machines: their kubelets start and
          stop pods, with grace periods, but without containers

Watch the time: EC2 gives two minutes. Ctrl-C ends it all.

`

const next = `
what next

  other warnings   cd test && go run ./cmd/demo -kind stop, or hibernate; -node NAME for another node
  how it decides   docs/how-it-decides.md
  your cluster     README.md: first in observe mode, which tells what it would do and changes nothing
`

// hibernated explains what looks like a failure, and is one for the pod that stays.
const hibernated = `
  Hibernation begins at once: each pod is asked once, and a budget that refuses is not argued with.
`

// screen is where the demo shows things. It is safe for concurrent use.
type screen struct {
	color bool

	mu    sync.Mutex
	w     io.Writer
	event time.Time
}

func newScreen(w io.Writer) *screen { return &screen{w: w, color: color(w)} }

// Write makes it a writer for what others show.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// A show that nobody sees any more goes on to its end all the same: there is no better place for these errors.
func (s *screen) text(text string) { _, _ = io.WriteString(s, text) }

func (s *screen) line(format string, args ...any) { s.text(fmt.Sprintf(format, args...) + "\n") }

// begin sets the moment from which seconds are counted.
func (s *screen) begin(event time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event = event
}

// live shows something at the moment it happens: who, and what.
func (s *screen) live(who, format string, args ...any) { s.liveAt(time.Now(), who, format, args...) }

func (s *screen) liveAt(t time.Time, who, format string, args ...any) {
	s.mu.Lock()
	event := s.event
	s.mu.Unlock()
	if event.IsZero() {
		return // the curtain is down
	}
	at := fmt.Sprintf("%+7.2f s", t.Sub(event).Seconds())
	s.line("%s  %-8s  %s", s.paint(faint, at), who, fmt.Sprintf(format, args...))
}

// The colours, as a terminal knows them.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// short is a node's or an instance's name, as long as one needs to tell it from the others here.
func short(name string) string {
	name, _, _ = strings.Cut(name, ".")
	const idLength = len("i-0123456")
	if strings.HasPrefix(name, "i-") && len(name) > idLength {
		return name[:idLength]
	}
	return name
}

// wrap breaks a line of JSON between its fields.
func wrap(json []byte, width int) []string {
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
