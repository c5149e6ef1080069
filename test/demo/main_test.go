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

// TestMain fails if the demos leave processes or files behind.
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

// leftovers returns an error if there are temporary files or child processes.
func leftovers() error {
	files, err := os.ReadDir(os.TempDir())
	if err != nil {
		return err
	}
	var found []error
	for _, f := range files {
		found = append(found, fmt.Errorf("leftover file %s", f.Name()))
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return err
	}
	for _, file := range children {
		pids, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has exited
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			found = append(found, fmt.Errorf("leftover process %s: %s", pid, bytes.ReplaceAll(command, []byte{0}, []byte(" "))))
		}
	}
	return errors.Join(found...)
}

// demo runs a demo and returns its output. After each write, it calls seen with the output so far.
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

// TestDemo runs complete demos, concurrently to stay below a minute.
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
	// Drain and replacement run concurrently: each list is ordered on its own.
	for _, phases := range [][]string{
		{`kops-spot drains its node within`, `control plane   Kubernetes v1\.`, `workloads .* web 12, .*: all Ready`,
			`ip-172-20-32-31 +7 +3  <- interrupted`, `payments +a PodDisruptionBudget`,
			`"instance-id":"i-0a95e7d3c1f04b826","instance-action":"terminate"`,
			`ec2       EC2 terminates the Spot instance i-0a95e7d`, `lambda    invoked`,
			`found node ip-172-20-32-31`, `evicted \d pods: .*payments`,
			`eviction of a payments pod refused, will retry \(429\): its budget (needs 3 healthy pods|does not allow)`,
			`evicted payments after \d+ refusal`, `terminated  0 remaining`, `lambda    finished: duration`,
			`(?m)^drained  ip-172-20-32-31\.ec2\.internal: cordoned after .* last eviction after .* empty after .* to spare$`,
			`(?m)^ +\+\d+\.\d\d s  node empty$`, `ok +the node is empty except for 3 `, `ok +all pods of every workload`,
			`ok +all 7 terminated pods`, `next steps`},
		{`lambda    invoked`, `cordoned it`, `terminated  6 remaining`},
		{`lambda    invoked`, `detached the instance: spot-us-east-1a`, `is running and boots`,
			`i-05b7e4d joined as a Ready node of spot-us-east-1a`, `orders-db-\d +Ready +on i-05b7e4d`,
			`ok +spot-us-east-1a is back at its desired capacity: 2 of 2`},
		{`detached the instance|launches i-05b7e4d`, `orders-db-\d +terminated`, `orders-db-\d +Pending`, `orders-db-\d +Ready`},
	} {
		inOrder(t, out, phases)
	}
	if n := len(regexp.MustCompile(`(?m)^ +\+\d+\.\d\d s  pod .* Ready +on `).FindAllString(out, -1)); n < 7 {
		t.Errorf("%d pods became Ready elsewhere, want 7\n%s", n, out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("output is colored without a terminal")
	}
	if strings.Contains(out, "  FAIL  ") {
		t.Errorf("a check failed in a successful demo\n%s", out)
	}
}

// inOrder checks that the phases appear in this order.
func inOrder(t *testing.T, out string, phases []string) {
	t.Helper()
	rest := out
	for _, phase := range phases {
		at := regexp.MustCompile(phase).FindStringIndex(rest)
		if at == nil {
			t.Errorf("%q is missing or out of order in\n%s", phase, out)
			return
		}
		rest = rest[at[1]:]
	}
}

// testHibernate runs a demo that fails: the budget refuses the second payments pod, and hibernation does not retry.
func testHibernate(t *testing.T) {
	t.Parallel()
	out, err := demo(t.Context(), nil, "-kind", "hibernate", "-node", "i-04e2b8f7160d9c3a5")
	if err == nil || !strings.Contains(err.Error(), "node not drained: pod payments-") ||
		!strings.Contains(err.Error(), "payments 3 of 4") {
		t.Errorf("error does not name the cause: %v\n%s", err, out)
	}
	inOrder(t, out, []string{`i-04e2b8f +\d +3  <- interrupted`, `found node i-04e2b8f`,
		`(?m)^incomplete  i-04e2b8f7160d9c3a5: 1 pod still running`, `1 still running at the end`,
		`FAIL  the node is empty`, `FAIL  all pods of every workload`, `ok +all \d terminated pods`,
		`Hibernation begins at once`})
}

// testInterrupted cancels a demo during the drain. TestMain checks for leftovers.
func testInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var at time.Time
	out, err := demo(ctx, func(shown string) {
		if at.IsZero() && strings.Contains(shown, "function  evicted ") {
			at = time.Now()
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(fmt.Sprint(err), "interrupted: ") {
		t.Errorf("got %v\n%s", err, out)
	}
	if took := time.Since(at); took > 15*time.Second {
		t.Errorf("returned %v after the interruption", took)
	}
	if strings.Contains(out, "  0 remaining") || strings.Contains(out, "outcome reported") {
		t.Errorf("the demo continued\n%s", out)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-kind", "reboot"}, "-kind reboot: must be terminate, stop or hibernate"},
		{[]string{"-node", "nowhere"}, `-node nowhere: no such node; use one of ["ip-172-20-32-11.ec2.internal"`},
		{[]string{"now"}, `unexpected argument "now"`},
	} {
		out, err := demo(t.Context(), nil, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%q: error %v, shown %q; want %q and nothing", c.args, err, out, c.want)
		}
	}
}
