package spottest

import "time"

// Bounds of the retry interval of failed launches. AWS does not document it; users report gaps of 30 s to several
// minutes.
const (
	firstRetry = 30 * time.Second
	lastRetry  = 15 * time.Minute
)

type launchRetry struct {
	wait  time.Duration // before the next try
	timer *time.Timer
}

// launchFailed schedules a retry.
func (a *AWS) launchFailed(g *Group) {
	r := a.retries[g.Name]
	if r == nil {
		r = &launchRetry{wait: firstRetry}
		a.retries[g.Name] = r
	} else {
		r.timer.Stop()
		r.wait = min(2*r.wait, lastRetry)
	}
	r.timer = time.AfterFunc(r.wait, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.retries[g.Name] == r {
			a.launchMissing(g)
		}
	})
}

// cancelRetry cancels the scheduled retry.
func (a *AWS) cancelRetry(g *Group) {
	if r := a.retries[g.Name]; r != nil {
		r.timer.Stop()
		delete(a.retries, g.Name)
	}
}
