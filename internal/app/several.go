package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/castai/kops-spot/internal/spot"
)

// parallelInstances limits how many instances of one event are handled in parallel. An AWS Health event can name dozens,
// mostly of other clusters. A drain can take the whole invocation, so an instance that waits for a slot may get no time.
const parallelInstances = 50

// severity orders results from the most to the least severe.
var severity = []spot.Result{spot.Incomplete, spot.NodeNotFound, spot.Drained, spot.Cordoned, spot.CleanedUp, spot.Recovered, spot.Skipped,
	spot.Planned, spot.Expired, spot.Ignored, spot.OtherCluster}

// handleAll handles the interruptions of one event. For several instances, it returns the most severe outcome, with all
// outcomes in it in the event's order.
//
// It returns an error only if handling failed and nothing was done for any instance. If something was done, a failure
// becomes an outcome: an error would make Lambda retry the whole event.
func (f *Function) handleAll(ctx context.Context, all []spot.Interruption) (spot.Outcome, error) {
	if len(all) == 1 {
		return f.handle(ctx, all[0])
	}
	each, errs := make([]spot.Outcome, len(all)), make([]error, len(all))
	slots := make(chan struct{}, parallelInstances)
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			each[i], errs[i] = f.handle(ctx, in)
		})
	}
	wg.Wait()
	done := false
	for i := range each {
		if errs[i] == nil {
			done = done || actedOn(each[i])
			continue
		}
		errs[i] = fmt.Errorf("instance %s: %w", all[i].Instance, errs[i])
		each[i] = f.untouched(all[i], errs[i])
	}
	if err := errors.Join(errs...); err != nil && !done {
		return spot.Outcome{}, err
	}
	out := slices.MinFunc(each, func(a, b spot.Outcome) int {
		return cmp.Compare(slices.Index(severity, a.Result), slices.Index(severity, b.Result))
	})
	out.Outcomes = each
	return out, nil
}

// actedOn reports whether the outcome rules out a retry of the whole event.
func actedOn(out spot.Outcome) bool {
	switch out.Result {
	case spot.OtherCluster, spot.Expired, spot.Ignored:
		return false
	}
	return true
}

// untouched returns the outcome of an interruption that could not be handled.
func (f *Function) untouched(in spot.Interruption, err error) spot.Outcome {
	return spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Incomplete, Reason: "handling failed", Cluster: f.cluster,
		Event:    spot.EventInfo{ID: in.EventID, Kind: in.Kind, Instance: in.Instance, Time: in.Time},
		Problems: []string{err.Error()}}
}
