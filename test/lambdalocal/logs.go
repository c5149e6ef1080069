package lambdalocal

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

// tailSize is what LogType Tail returns: "the last 4 KB of the execution log".
const tailSize = 4 << 10

// lineWriter lets the environments of all functions write without mixing lines.
type lineWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lineWriter) write(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A log that cannot be written must not fail the function, and there is no
	// other place to say so.
	l.w.Write(p)
}

// invocationLog is the log of one invocation, its init included.
type invocationLog struct {
	out *lineWriter

	mu   sync.Mutex
	line []byte // begun and not ended
	last []byte
}

func (l *invocationLog) write(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(p)
}

func (l *invocationLog) add(p []byte) {
	l.line = append(l.line, p...)
	end := bytes.LastIndexByte(l.line, '\n') + 1
	if end == 0 {
		return
	}
	l.out.write(l.line[:end])
	l.last = append(l.last, l.line[:end]...)
	if extra := len(l.last) - tailSize; extra > 0 {
		l.last = append(l.last[:0], l.last[extra:]...)
	}
	l.line = append(l.line[:0], l.line[end:]...)
}

func (l *invocationLog) tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.last)
}

// platform writes lines of Lambda's own, after ending the one the function left
// open.
func (l *invocationLog) platform(lines string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.add([]byte("\n"))
	}
	l.add([]byte(lines))
}

func (l *invocationLog) start(id string) {
	l.platform(fmt.Sprintf("START RequestId: %s Version: %s\n", id, latest))
}

// initReport is the line that tells of an init that failed; there is none for
// one that did not (execution environment lifecycle, "Failures during the Init
// phase").
func (l *invocationLog) initReport(took time.Duration, phase string, f *failure) {
	line := fmt.Sprintf("INIT_REPORT Init Duration: %s ms\tPhase: %s\tStatus: %s", milliseconds(took), phase, f.status)
	if f.status == "error" {
		line += "\tError Type: " + f.errorType
	}
	l.platform(line + "\n")
}

// end writes the END and REPORT lines and the reason of a failure. The billed
// duration holds the init since August 2025.
func (l *invocationLog) end(id string, r Report, memorySize int, f *failure) {
	billed := math.Ceil(float64(r.Duration+r.InitDuration) / float64(time.Millisecond))
	text := fmt.Sprintf("END RequestId: %s\nREPORT RequestId: %s\tDuration: %s ms\tBilled Duration: %.0f ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		id, id, milliseconds(r.Duration), billed, memorySize, r.MaxMemoryUsed)
	if r.InitDuration > 0 {
		text += fmt.Sprintf("Init Duration: %s ms\t", milliseconds(r.InitDuration))
	}
	switch {
	case f == nil:
		text += "\n"
	case f.status == "timeout":
		text += fmt.Sprintf("Status: timeout\n%s %s %s\n\n", time.Now().UTC().Format(millisecondFormat), id, f.message)
	default:
		text += fmt.Sprintf("Status: error\tError Type: %s\nRequestId: %s Error: %s\n%s\n", f.errorType, id, f.message, f.errorType)
	}
	l.platform(text)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}
