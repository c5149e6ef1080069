package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain wants nothing to be left when all demos have ended: no process and no file.
func TestMain(m *testing.M) {
	code := 1
	err := inTempDir(func() error {
		code = m.Run()
		return leftovers()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "after the demos:", err)
		code = 1
	}
	os.Exit(code)
}

// leftovers is an error if there are temporary files, or processes that this one has started.
func leftovers() error {
	files, err := os.ReadDir(os.TempDir())
	if err != nil {
		return err
	}
	var left []error
	for _, f := range files {
		left = append(left, fmt.Errorf("there is still the file %s", f.Name()))
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return err
	}
	for _, file := range children {
		pids, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			left = append(left, fmt.Errorf("there is still the process %s: %s", pid, bytes.ReplaceAll(command, []byte{0}, []byte(" "))))
		}
	}
	return errors.Join(left...)
}

// demo runs one and returns what it shows; seen is called with everything it has shown so far.
func demo(ctx context.Context, seen func(string), args ...string) (string, error) {
	out := &spy{seen: seen}
	err := run(ctx, args, out, io.Discard)
	return out.b.String(), err
}

type spy struct {
	mu   sync.Mutex
	b    strings.Builder
	seen func(string)
}

func (s *spy) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	if s.seen != nil {
		s.seen(s.b.String())
	}
	return len(p), nil
}

// TestDemo runs whole demos; the longest beside the others, so that all of them take no minute.
func TestDemo(t *testing.T) {
	t.Run("hibernate", testHibernate)
	t.Run("terminate", func(t *testing.T) {
		t.Parallel()
		t.Run("to the end", testTerminate)
		t.Run("interrupted", testInterrupted)
	})
}

func testTerminate(t *testing.T) {
	out, err := demo(t.Context(), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The two halves of the work go on side by side: each has an order of its own.
	for _, phases := range [][]string{
		{`kops-spot clears its node in time`, `control plane   Kubernetes v1\.`, `workloads .* web 12, .*: all Ready`, `ip-172-20-32-31 +7 +3  <- taken away`, `payments   have a budget`,
			`"instance-id":"i-0a95e7d3c1f04b826","instance-action":"terminate"`, `ec2       EC2 terminates the Spot instance i-0a95e7d`, `lambda    invoked`,
			`found the node ip-172-20-32-31`, `told \d pods to end: .*payments`, `may not evict a pod of payments yet \(429\): its budget (needs 3 healthy pods|does not allow)`,
			`told payments to end, after \d+ refusal`, `left   0 to go`, `lambda    ended: duration`,
			`(?m)^drained  ip-172-20-32-31\.ec2\.internal: cordoned after .* last eviction after .* empty after .* were left$`,
			`(?m)^ +\+\d+\.\d\d s  node empty$`, `ok  the node is empty, but for 3 pods`, `ok  every workload`, `ok  all 7 pods`, `what next`},
		{`lambda    invoked`, `cordoned it`, `left   6 to go`},
		{`lambda    invoked`, `detached the instance: spot-us-east-1a`, `runs, and boots`, `i-05b7e4d is a Ready node of spot-us-east-1a`,
			`orders-db-\d +Ready  on i-05b7e4d`, `ok  spot-us-east-1a is whole again: 2 of 2`},
		{`detached the instance|launches i-05b7e4d`, `orders-db-\d +left`, `orders-db-\d +waits`, `orders-db-\d +Ready`},
	} {
		inOrder(t, out, phases)
	}
	if n := len(regexp.MustCompile(`(?m)^ +\+\d+\.\d\d s  pod .* Ready  on `).FindAllString(out, -1)); n < 7 {
		t.Errorf("%d pods became Ready elsewhere; 7 had to leave\n%s", n, out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("there is colour where there is no terminal")
	}
	if strings.Contains(out, "  NO  ") {
		t.Errorf("a check fails in a demo that succeeds\n%s", out)
	}
}

// inOrder demands that each phase is shown after the one before.
func inOrder(t *testing.T, out string, phases []string) {
	t.Helper()
	rest := out
	for _, phase := range phases {
		at := regexp.MustCompile(phase).FindStringIndex(rest)
		if at == nil {
			t.Errorf("%q does not come, or not in its place, in\n%s", phase, out)
			return
		}
		rest = rest[at[1]:]
	}
}

// testHibernate cannot end well: the second pod of payments may not leave. So it shows what a demo that fails is like.
func testHibernate(t *testing.T) {
	t.Parallel()
	out, err := demo(t.Context(), nil, "-kind", "hibernate", "-node", "i-04e2b8f7160d9c3a5")
	if err == nil || !strings.Contains(err.Error(), "the node was not drained: payments-") || !strings.Contains(err.Error(), "payments 3 of 4") {
		t.Errorf("the error does not say what is wrong: %v\n%s", err, out)
	}
	inOrder(t, out, []string{`i-04e2b8f +\d +3  <- taken away`, `found the node i-04e2b8f`, `(?m)^incomplete  i-04e2b8f7160d9c3a5: still there at the end: 1 pod`,
		`1 still there at the end`, `NO  the node is empty`, `NO  every workload`, `ok  all \d pods that left`, `Hibernation begins at once`})
}

// testInterrupted ends a demo in the middle of the drain. TestMain looks for what that leaves.
func testInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var at time.Time
	out, err := demo(ctx, func(shown string) {
		if at.IsZero() && strings.Contains(shown, "pods to end") {
			at = time.Now()
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(fmt.Sprint(err), "interrupted: ") {
		t.Errorf("got %v\n%s", err, out)
	}
	if took := time.Since(at); took > 15*time.Second {
		t.Errorf("it went on for %v", took)
	}
	if strings.Contains(out, "0 to go") || strings.Contains(out, "own account") {
		t.Errorf("the show went on\n%s", out)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-kind", "reboot"}, "-kind reboot: it is terminate, stop or hibernate"},
		{[]string{"-node", "nowhere"}, `-node nowhere: there is no such node; there are ["ip-172-20-32-11.ec2.internal"`},
		{[]string{"now"}, `unexpected argument "now"`},
	} {
		out, err := demo(t.Context(), nil, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%q: error %v, shown %q; want %q and nothing", c.args, err, out, c.want)
		}
	}
}
