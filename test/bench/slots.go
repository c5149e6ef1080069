package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// slotsCase is the case whose table is in docs/operations.md.
const slotsCase = "slots"

// slotSizes are the sizes of the case slots.
type slotSizes struct {
	nodes, pods int
	limits      []int           // of concurrent executions
	stops       []time.Duration // from a pod's SIGTERM to its exit
	timeLeft    time.Duration   // until the instances terminate
	cleanUp     time.Duration   // from then until the end of the trial
	stagger     time.Duration   // between the warnings of two trials, whose cold starts would compete
}

// slotTrial is one account with a limit of concurrent executions, all of whose nodes get a warning at once.
type slotTrial struct {
	scenario
	limit   int
	cleanUp time.Duration
	service *fakelambda.Service

	start, end time.Time // of the warnings, of the instances

	mu      sync.Mutex
	results map[spot.Result]int
	failed  error
}

// slots measures how many nodes the function drains if Lambda allows fewer executions at once than there are warnings.
// The trials run on one control plane at the same time: they mostly wait.
func (b *bench) slots(ctx context.Context) (_ []table, err error) {
	bootstrap, err := testenv.BuildBootstrap(ctx)
	if err != nil {
		return nil, err
	}
	c, err := startCluster(ctx, b.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.cp.Stop()) }()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(c.token), 0o600); err != nil {
		return nil, err
	}
	size := b.lambda
	var trials []*slotTrial
	for _, limit := range size.limits {
		for _, stop := range size.stops {
			t := &slotTrial{limit: limit, cleanUp: size.cleanUp, results: map[spot.Result]int{},
				scenario: scenario{pods: size.pods, stop: stop, timeLeft: size.timeLeft}}
			if t.nodes, err = c.addNodes(ctx, size.nodes); err != nil {
				return nil, err
			}
			if _, err := c.createPods(ctx, t.scenario, len(trials)); err != nil {
				return nil, err
			}
			trials = append(trials, t)
		}
	}
	if err := c.waitUntilReady(ctx, len(trials)*size.nodes*size.pods); err != nil {
		return nil, err
	}
	group, running := errgroup.WithContext(ctx)
	for i, t := range trials {
		group.Go(func() error {
			if err := sleep(running, time.Duration(i)*size.stagger); err != nil {
				return err
			}
			err := t.run(running, c.cp, bootstrap, token)
			b.logf("slots, %s: %v", t, t.results)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	requests, pods, err := c.logs(ctx)
	if err != nil {
		return nil, err
	}
	result := table{title: fmt.Sprintf("%d warnings at once, %d pods on each node", size.nodes, size.pods),
		columns: []column{
			{name: "nodes drained before their deadline", total: float64(size.nodes)},
			{name: "last cordon", unit: seconds, plain: true},
			{name: "last of these nodes empty", unit: seconds, plain: true},
			{name: fmt.Sprintf("nodes of terminated instances deleted after %s", size.cleanUp), total: float64(size.nodes)}}}
	for _, t := range trials {
		result.rows = append(result.rows, row{t.String(), t.cells(requests, pods)})
	}
	return []table{result}, nil
}

func (t *slotTrial) String() string {
	return fmt.Sprintf("%d slots, pods stop in %s", t.limit, t.stop)
}

// launchTime is the time from the detach until the new instance runs.
const launchTime = 20 * time.Second

// run sends the warnings and the state changes that follow them: that a new instance of the group runs, and that the
// interrupted one is terminated.
func (t *slotTrial) run(ctx context.Context, cp *testenv.ControlPlane, bootstrap, token string) error {
	account := autoScalingGroup(t.nodes)
	account.SetGroup("nodes."+clusterName, func(g *spottest.Group) { g.LaunchTime = launchTime })
	fake, err := fakeaws.Start(account, 0)
	if err != nil {
		return err
	}
	defer fake.Close()
	// Timeout, memory size and retries are those of the template.
	t.service, err = fakelambda.New(fakelambda.Options{Region: region, Concurrency: t.limit,
		Functions: []fakelambda.Function{{Name: clusterName, Bootstrap: bootstrap, Timeout: 15 * time.Minute,
			MemorySize: 256, Environment: cp.FunctionEnv(clusterName, token, fake.Env()),
			Async: fakelambda.AsyncConfig{OnSuccess: t.keep, OnFailure: t.keep}}}})
	if err != nil {
		return err
	}
	defer t.service.Close()
	account.OnLaunch(func(i spottest.Instance) {
		_ = t.send(ctx, spot.Interruption{Kind: spot.StateChange, State: spot.StateRunning, Instance: i.ID,
			Time: time.Now()}) // fails after the trial
	})
	t.start = time.Now()
	t.end = t.start.Add(t.timeLeft)
	for _, n := range t.nodes {
		if err := t.send(ctx, spot.Interruption{Kind: spot.SpotTerminate, Instance: n.InstanceID,
			Time: t.end.Add(-notice)}); err != nil {
			return err
		}
	}
	if err := sleep(ctx, time.Until(t.end)); err != nil {
		return err
	}
	for _, n := range t.nodes {
		if err := cp.PowerOff(ctx, n.Object().Name); err != nil {
			return err
		}
		account.SetState(n.InstanceID, spot.StateTerminated)
		if err := t.send(ctx, spot.Interruption{Kind: spot.StateChange, State: spot.StateTerminated,
			Instance: n.InstanceID, Time: time.Now()}); err != nil {
			return err
		}
	}
	if err := sleep(ctx, time.Until(t.end.Add(t.cleanUp))); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *slotTrial) send(ctx context.Context, in spot.Interruption) error {
	in.EventID, in.Account, in.Region = in.State+in.Instance, "123456789012", region
	event, err := eventbridge.Encode(in)
	if err == nil {
		_, err = t.service.Invoke(ctx, clusterName, fakelambda.Event, event)
	}
	return err
}

func (t *slotTrial) keep(r fakelambda.Record) error {
	var out spot.Outcome
	err := json.Unmarshal(r.ResponsePayload, &out)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results[out.Result]++
	if err != nil || r.RequestContext.Condition != fakelambda.Success {
		t.failed = fmt.Errorf("event %s: %s", r.RequestPayload, r.ResponsePayload)
	}
	return nil
}

// cells returns the cells of the trial's row.
func (t *slotTrial) cells(requests []testenv.AuditRecord, pods []testenv.KubeletRecord) []float64 {
	removed := map[string]int{} // pods, by node
	for _, n := range t.nodes {
		removed[n.Object().Name] = 0
	}
	var drained, cordon, empty, deleted float64
	for _, r := range requests {
		_, ours := removed[r.Name]
		if !ours || r.Resource != "nodes" || r.Code != 200 || !strings.HasSuffix(r.User, ":kops-spot") {
			continue
		}
		switch {
		case r.Verb == "patch" && r.Answered.Before(t.end):
			cordon = max(cordon, r.Answered.Sub(t.start).Seconds())
		case r.Verb == "delete" && r.Answered.Before(t.end.Add(t.cleanUp)):
			deleted++
		}
	}
	for _, r := range pods {
		_, ours := removed[r.Node]
		if !ours || r.Event != testenv.PodRemoved || r.Time.After(t.end) {
			continue
		}
		if removed[r.Node]++; removed[r.Node] == t.scenario.pods {
			drained++
			empty = max(empty, r.Time.Sub(t.start).Seconds())
		}
	}
	return []float64{drained, cordon, empty, deleted}
}
