package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/demo/story"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

const function = "cast-spot-handler"

// interrupt sends the warning for an instance and prints what happens until the workloads have recovered.
func (w *world) interrupt(ctx context.Context, kind spot.Kind, victim *machine, bootstrap string) error {
	dir, err := os.MkdirTemp("", "demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	records := make(chan fakelambda.Record, 1)
	service, err := w.serve(ctx, dir, bootstrap, records)
	if err != nil {
		return err
	}
	defer service.Close()
	defer w.out.Begin(time.Time{}) // do not print the shutdown

	// Event times are whole seconds, so start at one: the printed times then count from the event's own time.
	if err := sleep(ctx, time.Until(time.Now().Truncate(time.Second).Add(time.Second))); err != nil {
		return err
	}
	in := spot.Interruption{EventID: string(uuid.NewUUID()), Kind: kind, Instance: victim.id, Account: account, Region: story.Region,
		Time: time.Now().Truncate(time.Second)}
	event, err := eventbridge.Encode(in)
	if err != nil {
		return err
	}
	w.out.Line("\nevent from EventBridge\n")
	for _, line := range story.Wrap(event, 90) {
		w.out.Line("  %s", line)
	}
	w.out.Line("\nseconds since the event\n")
	w.out.Begin(in.Time)
	w.pods.begin(victim.node)
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go w.watchGroup(watching, victim.group, w.groupMembers(victim.group))
	w.out.Live("ec2", "%s %s", kind.Description(), story.Short(victim.id))
	if _, err := service.Invoke(ctx, function, fakelambda.Event, event); err != nil {
		return err
	}

	var outcome spot.Outcome
	select {
	case <-ctx.Done():
		return ctx.Err()
	case record := <-records:
		if record.RequestContext.Condition != fakelambda.Success {
			return fmt.Errorf("running the function: %s: %s", record.RequestContext.Condition, record.ResponsePayload)
		}
		if err := json.Unmarshal(record.ResponsePayload, &outcome); err != nil {
			return fmt.Errorf("reading the outcome: %w", err)
		}
	}
	// Wait until Kubernetes has the last pods Ready. If they are not, the checks report it.
	patience := time.Minute
	if outcome.Result != spot.Drained {
		patience = 5 * time.Second
	}
	_ = w.awaitReady(ctx, victim, patience)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.out.Begin(time.Time{})
	return w.report(ctx, outcome, victim)
}

// serve starts a Lambda service with the function, which gets its shipped permissions in the cluster.
func (w *world) serve(ctx context.Context, dir, bootstrap string, records chan<- fakelambda.Record) (*fakelambda.Service, error) {
	token, err := w.cp.ServiceAccountToken(ctx, system, "kops-spot", time.Hour)
	if err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return nil, err
	}
	env := w.cp.FunctionEnv(story.Cluster, tokenFile, w.fake.Env())
	keep := func(r fakelambda.Record) error {
		records <- r
		return nil
	}
	return fakelambda.New(fakelambda.Options{Region: story.Region, AccountID: account, Functions: []fakelambda.Function{{
		Name: function, Bootstrap: bootstrap, Environment: env, Timeout: 150 * time.Second, MemorySize: 256,
		Logs:  &story.FunctionLog{Out: w.out},
		Async: fakelambda.AsyncConfig{MaximumRetryAttempts: new(0), OnSuccess: keep, OnFailure: keep},
	}}})
}

// watchGroup prints the instances that a group launches.
func (w *world) watchGroup(ctx context.Context, group string, known map[string]bool) {
	for sleep(ctx, 20*time.Millisecond) == nil {
		for id := range w.groupMembers(group) {
			if !known[id] {
				known[id] = true
				w.out.Live("aws", "%s launches %s", group, story.Short(id))
			}
		}
	}
}

func (w *world) groupMembers(group string) map[string]bool {
	ids := map[string]bool{}
	for _, m := range w.aws.Group(group + "." + story.Cluster).Members {
		ids[m.ID] = true
	}
	return ids
}

// awaitReady waits until all pods of every workload are Ready on other nodes than the victim.
func (w *world) awaitReady(ctx context.Context, victim *machine, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		missing := w.missing(victim)
		if len(missing) == 0 {
			return nil
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return errors.New("not Ready in time: " + strings.Join(missing, ", "))
		}
	}
}

// missing lists the workloads that do not have all pods Ready on other nodes than the victim.
func (w *world) missing(victim *machine) (missing []string) {
	w.mu.Lock()
	nodes, except := len(w.machines), ""
	w.mu.Unlock()
	if victim != nil {
		nodes, except = nodes-1, victim.node
	}
	require := func(a app, want int) {
		if n := w.pods.ready(a, except); n < want {
			missing = append(missing, fmt.Sprintf("%s %d of %d", a.Name, n, want))
		}
	}
	for _, a := range story.Apps {
		require(app{a}, a.Replicas)
	}
	for _, d := range w.shop.daemons() {
		require(d, nodes)
	}
	return missing
}
