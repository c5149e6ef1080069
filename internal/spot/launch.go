package spot

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// launchFirst and launchMost bound the pause between two questions what became of a request for a replacement. A
	// group takes some seconds to begin a launch, and fifty that follow at once must not use its quota up.
	launchFirst = 2 * time.Second
	launchMost  = 8 * time.Second
)

// followLaunch follows the group's answer to a detach: the instance it launches and, once that registers, its node; or
// the group's own reason why it cannot. Of several instances that a group launches at once nobody can say which replaces
// which: the first that was begun since is told.
func (c *call) followLaunch(ctx context.Context, told *ReplacementResult) {
	asked := time.Now().UTC()
	pause := launchFirst
	for sleep(ctx, pause/2+rand.N(pause)) {
		pause = min(2*pause, launchMost)
		launches, err := c.Cloud.Launches(ctx, told.Group, asked)
		if errors.Is(err, ErrPermanent) {
			told.GroupMessage = "what the group answers could not be asked: " + err.Error()
			return
		}
		for _, l := range launches {
			switch {
			case l.Failed:
				told.GroupMessage = l.Reason // it may try again, in another zone or with another type
			case l.Instance != "":
				told.Instance, told.GroupMessage = l.Instance, ""
				told.LaunchedAt = since(c.in.Time, l.At)
			}
			if told.Instance != "" {
				c.log("replacement-launched", "group launched replacement", "group", told.Group, "replacement", told.Instance)
				c.followNode(ctx, told)
				return
			}
		}
	}
}

// followNode waits for the new instance's node.
func (c *call) followNode(ctx context.Context, told *ReplacementResult) {
	names := []string{told.Instance}
	for sleep(ctx, launchFirst) {
		if len(names) == 1 { // its other names need its address, which EC2 may tell a moment later
			if i, err := c.Cloud.Instance(ctx, told.Instance); err == nil && i.PrivateIP != "" {
				names = i.NodeNames(c.in.Region)
			}
		}
		for _, name := range names {
			if n, err := c.Cluster.NodeNamed(ctx, name); err == nil && n.IsInstance(told.Instance) {
				told.Node, told.RegisteredAt = n.Name, since(c.in.Time, time.Now())
				c.log("replacement-registered", "replacement node registered", "node", n.Name)
				return
			}
		}
	}
}
