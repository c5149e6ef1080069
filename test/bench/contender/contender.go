// Package contender holds the ways to drain nodes that are compared: kops-spot's handler, and kubectl's drain library as
// programs use it.
package contender

import (
	"context"
	"time"

	"github.com/castai/kops-spot/test/testenv"
)

// Contender is one way to drain nodes.
type Contender struct {
	Name    string
	Account string // the ServiceAccount it logs in as, in kube-system
	// Prepare makes what such a program has at hand when an event comes, and returns what it does then.
	Prepare func(context.Context, Place) (Drain, error)
}

// Drain drains all the nodes of the place and returns when its program thinks that it is done. at is the event's time.
// Each error is of a node that was given up.
type Drain func(ctx context.Context, at time.Time) []error

// Place is where nodes are drained.
type Place struct {
	Nodes []testenv.Node
	// Left is how long the machines still live: what a contender that knows limits to its timeout.
	Left      time.Duration
	Server    string // of the API, as https://host:port
	CA        []byte
	Token     string
	UserAgent string
}

// lead is the notice that EC2 gives.
const lead = 2 * time.Minute

// EventTime is when EC2 sent a warning of which now so much is left.
func EventTime(now time.Time, left time.Duration) time.Time { return now.Add(left - lead) }
