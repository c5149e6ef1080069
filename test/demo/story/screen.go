// Package story holds what the demo and its preview share: the cluster, its workloads and the output.
package story

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Intro explains which parts of the demo are real and which are simulated.
const Intro = `EC2 reclaims a Spot instance, and kops-spot drains its node within the two-minute notice.

  real       Kubernetes API server, controllers and scheduler; the released binary of the
             function with its shipped permissions, in a local Lambda service
  simulated  EC2, Auto Scaling groups and kubelets, which start and stop pods with grace
             periods but run no containers

Press Ctrl-C to stop and clean up.

`

// Next lists what to try after the demo.
const Next = `
next steps

  other events   cd test && go run ./demo -kind stop (or hibernate); -node NAME selects another node
  how it works   docs/how-it-works.md
  your cluster   README.md; start in observe mode, which reports actions without taking them
`

// Hibernated explains why the checks fail after a hibernation.
const Hibernated = `
  Hibernation begins at once: each pod is evicted once, and a refused eviction is not retried.
`

// Screen prints the demo. It is safe for concurrent use.
type Screen struct {
	Color bool

	mu    sync.Mutex
	w     io.Writer
	event time.Time
}

// NewScreen returns a Screen that writes to w.
func NewScreen(w io.Writer) *Screen { return &Screen{w: w, Color: color(w)} }

func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// Text ignores write errors: the demo continues without a reader.
func (s *Screen) Text(text string) { _, _ = io.WriteString(s, text) }

func (s *Screen) Line(format string, args ...any) { s.Text(fmt.Sprintf(format, args...) + "\n") }

// Begin sets the time of the event, from which Live counts seconds. The zero time turns Live off.
func (s *Screen) Begin(event time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event = event
}

// Live prints what a component (who) does, with the seconds since the event.
func (s *Screen) Live(who, format string, args ...any) { s.liveAt(time.Now(), who, format, args...) }

func (s *Screen) liveAt(t time.Time, who, format string, args ...any) {
	s.mu.Lock()
	event := s.event
	s.mu.Unlock()
	if event.IsZero() {
		return
	}
	at := fmt.Sprintf("%+7.2f s", t.Sub(event).Seconds())
	s.Line("%s  %-8s  %s", s.Paint(Faint, at), who, fmt.Sprintf(format, args...))
}

// color reports whether w is a terminal whose user accepts color.
func color(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// ANSI color codes.
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

// Short abbreviates the name of a node or instance. It stays unique within the demo.
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
