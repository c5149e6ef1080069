package lambdalocal

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// command is what to run: nothing is inherited but the output.
type command struct {
	path, dir string
	env       []string
	output    *os.File
}

// launcher starts processes from one thread that lives as long as the service.
// The kernel sends the parent-death signal when the thread that forked ends, not
// the process (prctl(2), PR_SET_PDEATHSIG), and Go ends threads when it likes.
type launcher struct {
	calls chan func()
	ended chan struct{}
}

func newLauncher() *launcher {
	l := &launcher{calls: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range l.calls {
			call()
		}
	}()
	return l
}

func (l *launcher) close() {
	close(l.calls)
	<-l.ended
}

func (l *launcher) start(c command) (*process, error) {
	cmd := &exec.Cmd{
		Path:   c.path,
		Args:   []string{c.path},
		Dir:    c.dir,
		Env:    c.env,
		Stdout: c.output,
		Stderr: c.output,
		// A group of its own, so that what the function starts dies with it, and a
		// terminal's Ctrl-C reaches this program alone.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	done := make(chan error)
	l.calls <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go p.reap()
	return p, nil
}

// process is a bootstrap and the process group it leads.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the group is killed and its leader reaped
	waited error         // what Wait returned; valid after exited

	mu     sync.Mutex
	reaped bool
	peak   int // in MB
}

// reap kills what is left of the group before the leader is reaped: until then
// no other process can get its number.
func (p *process) reap() {
	awaitExit(p.cmd.Process.Pid)
	p.mu.Lock()
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.waited = p.cmd.Wait()
	p.reaped = true
	p.mu.Unlock()
	close(p.exited)
}

// awaitExit is waitid(2) with WNOWAIT: it leaves the zombie where it is.
func awaitExit(pid int) {
	const pPID, wExited, wNoWait = 1, 0x4, 0x1000000
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), 0, wExited|wNoWait, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

func (p *process) freeze() { p.signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT) }

func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// peakMemory is the highest resident set seen so far, in MB rounded up. It is
// read from /proc while the process lives: the kernel's number after the exit
// (ru_maxrss) starts from the size of the process that forked.
func (p *process) peakMemory() int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.reaped {
		return p.peak
	}
	for line := range strings.Lines(string(status)) {
		value, found := strings.CutPrefix(line, "VmHWM:")
		if !found {
			continue
		}
		kB, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
		if err == nil {
			p.peak = max(p.peak, (kB+1023)/1024)
		}
	}
	return p.peak
}
