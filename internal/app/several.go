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

// atOnce is how many interruptions of one event are handled at once. AWS Health names instances by the dozen, most of which
// may be other clusters'; a drain may last as long as the invocation, and one that waits for its turn would get none.
const atOnce = 50

// gravity orders results from the gravest to the lightest.
var gravity = []spot.Result{spot.Incomplete, spot.NodeNotFound, spot.Drained, spot.Cordoned, spot.CleanedUp, spot.Recovered, spot.Skipped,
	spot.Planned, spot.Expired, spot.Ignored, spot.OtherCluster}

// handleAll handles the interruptions of one event. The outcome of several is the gravest, with all of them under Each, in
// the event's order.
//
// It is an error only if something failed and nothing was done: those that are none of ours, or past, do not count. Where
// something was done for another, a failure is told as an outcome of its own: the whole event would come again otherwise.
func (f *Function) handleAll(ctx context.Context, all []spot.Interruption) (spot.Outcome, error) {
	if len(all) == 1 {
		return f.handle(ctx, all[0])
	}
	each, errs := make([]spot.Outcome, len(all)), make([]error, len(all))
	slots := make(chan struct{}, atOnce)
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
		return cmp.Compare(slices.Index(gravity, a.Result), slices.Index(gravity, b.Result))
	})
	out.Outcomes = each
	return out, nil
}

// actedOn reports whether an outcome is one that another try of the whole event should not be risked for.
func actedOn(out spot.Outcome) bool {
	switch out.Result {
	case spot.OtherCluster, spot.Expired, spot.Ignored:
		return false
	}
	return true
}

// untouched is the outcome of an interruption for which nothing could be done.
func (f *Function) untouched(in spot.Interruption, err error) spot.Outcome {
	return spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Incomplete, Reason: "nothing could be done", Cluster: f.cluster,
		Event:    spot.EventInfo{ID: in.EventID, Kind: in.Kind, Instance: in.Instance, Time: in.Time},
		Problems: []string{err.Error()}}
}
