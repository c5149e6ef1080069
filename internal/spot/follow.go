package spot

import (
	"context"
	"time"
)

const (
	// relistFirst and relistMost bound the pause before the pods are listed again after a broken watch.
	relistFirst = 200 * time.Millisecond
	relistMost  = 3 * time.Second
)

// follow hands on what the watch shows, and begins again with a list when it breaks. Only pods that have never been listed
// can be given up: of those that were, each still has to be asked, with or without a watch.
func (c *call) follow(ctx context.Context, node string, changes chan<- podUpdate) {
	hand := func(news podUpdate) {
		select {
		case changes <- news:
		case <-ctx.Done():
		}
	}
	listed := false
	pause := relistFirst
	var d transientErrors
	for {
		began := time.Now()
		err := c.Cluster.FollowPods(ctx, node, func(ch PodChange) {
			listed = listed || ch.All
			hand(podUpdate{PodChange: ch})
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > relistMost {
			pause = relistFirst // it held for a while: this is a new trouble
		}
		givenUp := err != nil && d.final(err) && !listed
		if err != nil {
			hand(podUpdate{err: err, givenUp: givenUp})
		}
		if givenUp || !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, relistMost)
	}
}

// podUpdate is a look at the pods, or why there is none just now.
type podUpdate struct {
	PodChange
	err     error
	givenUp bool // there never will be one
}
