package lambdalocal

import (
	"os"
	"sync"
	"syscall"
)

// output carries what a process prints to the log of the invocation it serves.
// The reads do not block and happen under one mutex, so that flush can empty the
// pipe at a moment of its choosing: what a function printed before it answered
// is then in that invocation's log, before its END line.
type output struct {
	readEnd, writeEnd *os.File
	raw               syscall.RawConn

	mu  sync.Mutex
	log *invocationLog
	buf [16 << 10]byte
}

func newOutput(log *invocationLog) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	raw, err := r.SyscallConn()
	if err != nil {
		r.Close()
		w.Close()
		return nil, err
	}
	o := &output{readEnd: r, writeEnd: w, raw: raw, log: log}
	go raw.Read(o.drain)
	return o, nil
}

// started gives up this process's copy of the write end once the function has
// its own.
func (o *output) started() { o.writeEnd.Close() }

func (o *output) attach(log *invocationLog) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = log
}

func (o *output) flush() {
	o.raw.Control(func(fd uintptr) { o.drain(fd) })
}

func (o *output) close() { o.readEnd.Close() }

// drain moves what is in the pipe and tells whether that was all there will be.
func (o *output) drain(fd uintptr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		n, err := syscall.Read(int(fd), o.buf[:])
		switch {
		case n > 0:
			o.log.write(o.buf[:n])
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		default:
			return true
		}
	}
}
