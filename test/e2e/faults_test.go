package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

var update = flag.Bool("update", false, "write docs/faults.md")

const (
	faultsFile = "../../docs/faults.md"

	// cellNotice is the time left when a cell's warning is sent, up to a second more: events have whole seconds.
	cellNotice = 15 * time.Second

	// tolerance is how much later than its limit an invocation may end.
	tolerance = time.Second

	// cellsAtATime is how many cells run at the same time.
	cellsAtATime = 16

	// stallLimit is how long the machine may not respond in a cell that is judged.
	stallLimit = 500 * time.Millisecond
)

// cell is one interruption with a fault.
type cell struct {
	spottest.FaultRequest
	fault   string
	always  bool
	result  string
	seconds float64
}

// faultCells returns the cells of the table. A few make no difference and are left out: AWS has neither 401 nor 429,
// and for its reads, a truncated response is one that was refused; CAST AI's client and the reading of secrets treat
// all failures alike, as their own tests show; Kubernetes Events are sent after the work.
func faultCells() (cells []*cell) {
	add := func(r spottest.FaultRequest, faults ...string) {
		for _, fault := range faults {
			cells = append(cells, &cell{FaultRequest: r, fault: fault}, &cell{FaultRequest: r, fault: fault, always: true})
		}
	}
	for _, r := range spottest.FaultRequests {
		switch {
		case r.Request == "create events", r.Request == spottest.AnyKubernetes, r.Request == spottest.AnyAWS:
		case r.Request == spottest.AnyRequest:
			add(r, "refused")
		case r.Request == spottest.CASTAIEvent:
			add(r, "refused", "429")
		case strings.HasPrefix(r.Request, "Describe"):
			add(r, "refused", "500", "slow")
		case r.IsAWS():
			add(r, "refused", "truncated", "500", "slow")
		default:
			add(r, "refused", "truncated", "500", "slow", "401", "429")
		}
	}
	add(spottest.FaultRequest{Request: readsSecret, Always: "incomplete, detached"}, "refused")
	return cells
}

// TestFaults lets each request fail in each way, on real servers. The results are those in memory.
func TestFaults(t *testing.T) {
	cells := faultCells()
	names := make([]string, len(cells))
	for i, c := range cells {
		names[i] = c.Request + "/" + c.fault + map[bool]string{false: "/once", true: "/always"}[c.always]
	}
	eachCell(t, names, func(t *testing.T, i int) []string { return cells[i].run(t) })
	var table spottest.FaultTable
	for _, c := range cells {
		table.Add(c.FaultRequest, c.fault, c.result, c.seconds)
	}
	text := fmt.Sprintf(faultsText, len(cells)) + table.String()
	if *update && !t.Failed() {
		must(t, spottest.WriteSection(faultsFile, "On real servers", text))
	}
}

const faultsText = `The same with the function's binary, kube-apiserver, and proxies that let one request or all fail, in %d cells. The
warning is sent 15 to 16 s before the deadline, and the seconds count from 15 s before it. The pods need 2 s of their
3 s to stop. A response is truncated after the request was carried out. *slow* is no response, for 6 s to a read and 4 s
to a write. A 429 has a Retry-After of 10 s.

Written by ` + "`go test ./e2e -run TestFaults -update`" + ` in ` + "`test/`" + `, and asserted by ` + "`make test`" + `.

| request | fault | once | always |
|---|---|---|---|
`

// run interrupts a node with a pod and, where there is time or it matters, one whose budget never allows its eviction.
// It returns what is wrong.
func (c *cell) run(t *testing.T) (wrong []string) {
	r := newSerialFixture(t)
	m := r.targets(1)[0]
	api := &castaiAPI{}
	if c.Request == spottest.CASTAIEvent {
		api = r.castai()
		r.label(m.id, castaiNode, "theirs")
	}
	r.pin(app{name: "web", grace: 3 * time.Second, exit: 2 * time.Second}, m.id)
	guarded := c.always || slices.Contains([]string{"create pods/eviction", "patch pods/status", "delete pods"}, c.Request)
	if guarded {
		r.pin(app{name: "guarded", grace: 3 * time.Second, exit: 2 * time.Second}, m.id)
		r.guard("guarded", 1)
	}
	r.waitReady("web", 1)

	g := r.newGate(api, c.Request == readsSecret)
	fault, n := serverFaults[c.fault], 1
	if c.IsAWS() && c.fault == "500" {
		fault = func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			r.aws.Fail(c.Request, 1, spottest.Broken())
			next.ServeHTTP(w, req)
		}
	}
	if c.always {
		n = -1
	}
	g.fails(c.Request, n, fault)
	in := r.warning(spot.SpotTerminate, m.id, notice-cellNotice-time.Second)
	s := r.service()
	res := r.invoke(s, r.encode(in))
	c.seconds = time.Since(in.Time.Add(notice - cellNotice)).Seconds()

	is := spottest.Actual{Cordoned: r.getNode(m.id).Spec.Unschedulable, Pods: r.podsOn(m.id), Replaced: r.detached() == 1}
	if c.Request == spottest.CASTAIEvent {
		is.Replaced = slices.ContainsFunc(api.received(), func(e castaiEvent) bool { return e.code == http.StatusOK })
	}
	out, err := r.decode(res)
	c.result, wrong = c.Judge(out, err, is)
	if want := c.Want(c.always, c.fault == "truncated"); c.result != want {
		wrong = append(wrong, fmt.Sprintf("got %s, want %s: %s", c.result, want, res.Payload))
	}
	if limit := cellNotice + tolerance; c.seconds > limit.Seconds() {
		wrong = append(wrong, fmt.Sprintf("took %.1f s, want %s: %s", c.seconds, limit, res.Payload))
	}
	for _, rec := range r.kubelet(testenv.PodGraceShortened) {
		wrong = append(wrong, fmt.Sprintf("the grace period of %s was shortened to %d s", rec.Pod, rec.Grace))
	}
	return wrong
}

// eachCell runs the cells as subtests, cellsAtATime at the same time. If something is wrong with a cell during which
// the machine stalled, it says so and runs once more.
func eachCell(t *testing.T, names []string, run func(t *testing.T, i int) (wrong []string)) {
	t.Helper()
	m := startStallMeter(t)
	slots := make(chan struct{}, cellsAtATime)
	var running sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			t.Run(name, func(t *testing.T) {
				began := time.Now()
				wrong := run(t, i)
				if stalled := m.longest(began); len(wrong) > 0 && stalled > stallLimit {
					t.Logf("the machine stalled for %s, so the cell runs again: %q", stalled, wrong)
					wrong = run(t, i)
				}
				for _, w := range wrong {
					t.Error(w)
				}
			})
		})
	}
	running.Wait()
}

// stallMeter measures how long the machine and the API server do not respond.
type stallMeter struct {
	mu    sync.Mutex
	times []time.Time // of responses
}

func startStallMeter(t *testing.T) *stallMeter {
	t.Helper()
	m := &stallMeter{}
	var running sync.WaitGroup
	running.Go(func() {
		for t.Context().Err() == nil {
			if _, err := shared.cp.Client().Discovery().ServerVersion(); err == nil {
				m.mu.Lock()
				m.times = append(m.times, time.Now())
				m.mu.Unlock()
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	t.Cleanup(running.Wait)
	return m
}

// longest returns the longest time without a response since a moment.
func (m *stallMeter) longest(since time.Time) (longest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range append(m.times, time.Now()) {
		if at.After(since) {
			longest = max(longest, at.Sub(since))
			since = at
		}
	}
	return longest
}
