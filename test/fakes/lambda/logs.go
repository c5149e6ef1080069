package lambda

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// Log is a function log in memory. It can be read while it is written.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// log writes lines to the function's log.
func (s *Service) log(fn *function, lines []byte) {
	if fn.Logs == nil {
		return
	}
	s.logs.Lock()
	defer s.logs.Unlock()
	_, _ = fn.Logs.Write(lines) // an unwritable log must not fail the function
}

// output copies the output of a process to its function's log in whole lines. Reads do not block and hold one mutex, so
// the pipe can be emptied at any moment: what a function printed before its response comes before the END line.
type output struct {
	pipe *os.File
	raw  syscall.RawConn
	log  func(lines []byte)

	mu   sync.Mutex
	line []byte // an incomplete line
	buf  [16 << 10]byte
}

func newOutput(log func([]byte)) (*output, *os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	raw, err := read.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	o := &output{pipe: read, raw: raw, log: log}
	go raw.Read(o.drain)
	return o, write, nil
}

// drain reads the pipe and reports whether it is closed.
func (o *output) drain(fd uintptr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		n, err := syscall.Read(int(fd), o.buf[:])
		switch {
		case n > 0:
			o.add(o.buf[:n])
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		default:
			return true
		}
	}
}

func (o *output) add(p []byte) {
	o.line = append(o.line, p...)
	if end := bytes.LastIndexByte(o.line, '\n') + 1; end > 0 {
		o.log(o.line[:end])
		o.line = append(o.line[:0], o.line[end:]...)
	}
}

func (o *output) flush() {
	_ = o.raw.Control(func(fd uintptr) { o.drain(fd) }) // fails after close
}

func (o *output) close() {
	o.flush()
	o.pipe.Close()
}

// platform writes Lambda's own lines after the function's output.
func (o *output) platform(lines string) {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.line) > 0 {
		o.add([]byte("\n"))
	}
	o.add([]byte(lines))
}

// text returns the END and REPORT lines and the reason of a failure.
func (r Report) text(id string, memorySize int, f *failure) string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	text := fmt.Sprintf("END RequestId: %s\nREPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %.0f ms\t"+
		"Memory Size: %d MB\tMax Memory Used: %d MB\t",
		id, id, ms(r.Duration), ms(r.InitDuration+r.Duration), memorySize, r.MaxMemoryUsed)
	if r.InitDuration > 0 {
		text += fmt.Sprintf("Init Duration: %.2f ms\t", ms(r.InitDuration))
	}
	if f != nil {
		text += fmt.Sprintf("\nRequestId: %s Error: %s", id, f.message)
	}
	return text + "\n"
}
