package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

// killRequests are the requests after which the function is killed, each kind once. CAST AI's event is not among them:
// it may be repeated.
var killRequests = []string{"get nodes", "patch nodes", "watch nodes", "list pods", "watch pods", "create pods/eviction",
	"patch pods/status", "delete pods", "create events", "DescribeInstances", "DescribeAutoScalingInstances",
	"DescribeAutoScalingGroups", "DescribeLifecycleHooks", "CreateTags", "DetachInstances"}

// TestKill kills the function's process when a request has been carried out, before its response. A retry one second
// later completes the work: nothing is done twice, and no grace period is shortened.
func TestKill(t *testing.T) {
	rows := make([]string, len(killRequests))
	eachCell(t, killRequests, func(t *testing.T, i int) (wrong []string) {
		rows[i], wrong = killAfter(t, killRequests[i])
		return wrong
	})
	if *update && !t.Failed() {
		must(t, spottest.WriteSection(faultsFile, "Killed", killText+strings.Join(rows, "")))
	}
}

const killText = `The function is killed (SIGKILL) when a request has been carried out, before its response, with 120 s left. A retry
follows after one second, on the same real servers. The pods need 2 s to stop, and the pod with the budget is
force-deleted 5 s after the event (` + "`KOPS_SPOT_FORCE_GRACE=110s`" + `). In every row, all pods have got SIGTERM once with
their whole grace period, and the instance was detached once. In memory, ` + "`TestKill`" + ` does the same after every request.

Written by ` + "`go test ./e2e -run TestKill -update`" + ` in ` + "`test/`" + `, and asserted by ` + "`make test`" + `.

| killed after | result of the retry | seconds from the event |
|---|---|---|
`

func killAfter(t *testing.T, request string) (row string, wrong []string) {
	const grace = 110 * time.Second
	r := newSerialFixture(t)
	m := r.targets(1)[0]
	r.pin(app{name: "web", exit: 2 * time.Second}, m.id)
	r.pin(app{name: "guarded", grace: grace, exit: 2 * time.Second}, m.id)
	r.guard("guarded", 1)
	r.waitReady("web", 1)
	r.env["KOPS_SPOT_FORCE_GRACE"] = grace.String()
	g := r.newGate(nil, false)
	s := r.service()
	killed := make(chan struct{})
	g.fails(request, 1, func(_ http.ResponseWriter, req *http.Request, next http.Handler) {
		g.setDown(true)
		if !strings.HasPrefix(request, "watch ") { // it would not end
			next.ServeHTTP(httptest.NewRecorder(), req)
		}
		close(killed)
		s.KillAll()
		panic(http.ErrAbortHandler)
	})
	in := r.warning(spot.SpotTerminate, m.id, 0)
	first := r.invoke(s, r.encode(in))
	select {
	case <-killed:
	default:
		return "", []string{fmt.Sprintf("it sent no such request: %s", first.Payload)}
	}
	time.Sleep(time.Second)
	g.setDown(false)
	out, err := r.decode(r.invoke(s, r.encode(in)))
	seconds := time.Since(in.Time).Seconds()

	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	is := spottest.Actual{Cordoned: r.getNode(m.id).Spec.Unschedulable, Pods: r.podsOn(m.id), Replaced: r.detached() == 1}
	expect(err == nil && out.Result == spot.Drained, "got %s, %v", out.Result, err)
	expect(is.Cordoned && is.Replaced && len(is.Pods) == 0, "got %+v after %d detaches", is, r.detached())
	sigterms := map[string]int64{}
	for _, rec := range r.kubelet(testenv.PodSigTerm) {
		expect(sigterms[rec.Pod] == 0, "%s got SIGTERM twice", rec.Pod)
		sigterms[rec.Pod] = rec.Grace
	}
	expect(sigterms["web"] == 30 && sigterms["guarded"] == int64(grace.Seconds()), "got SIGTERM with %v s", sigterms)
	expect(len(r.kubelet(testenv.PodGraceShortened)) == 0, "grace periods were shortened")
	for pod, n := range g.accepted {
		expect(n == 1, "%s was evicted or deleted %d times", pod, n)
	}
	return fmt.Sprintf("| `%s` | %s | %.0f |\n", request, out.Result, seconds), wrong
}
