package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// selfCheckVersion is the version of the SelfCheck's JSON form. Fields may be added within a version, never change
	// meaning.
	selfCheckVersion = 1

	// selfCheckLimit bounds all of a self-check: it is invoked all day long, and what hangs is not ready either.
	selfCheckLimit = 25 * time.Second

	// selfCheckMargin is what an invocation that ends sooner keeps for telling.
	selfCheckMargin = 2 * time.Second
)

// Readiness is what comes of a self-check, in one word.
type Readiness string

const (
	Ready    Readiness = "ready"
	NotReady Readiness = "not-ready"
)

// SelfCheck says whether the function could act now, whatever its mode, and what is in the way.
type SelfCheck struct {
	Version int                    `json:"version"`
	Result  Readiness              `json:"result"`
	Program string                 `json:"program"` // the function's version
	Cluster string                 `json:"cluster"`
	Checks  []Check                `json:"checks"`
	Overdue []spot.OverdueInstance `json:"overdue"` // nodes that we have marked and whose instances should have ended long ago

	looked bool // Overdue are all there are
}

// Check is one thing that the function needs.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"` // what to do, where it is not OK
}

// metrics are Ready and, where all could be seen, how many instances are overdue.
func (s SelfCheck) metrics() []metric {
	var m measured
	m.count("Ready", one(s.Result == Ready))
	if s.looked {
		m.count("Overdue", len(s.Overdue))
	}
	return m
}

// selfChecker proves that the function could act, by making the requests that change nothing and by asking whether it may
// make the others.
type selfChecker struct {
	cfg     Config
	cluster checkedCluster
	cloud   checkedCloud
	texts   []text
	program string

	// reach looks whether there is a way to the API server; nil where nobody asks.
	reach func(context.Context) error
}

// checkedCluster is what a self-check asks of the cluster.
type checkedCluster interface {
	spot.CordonedNodeLister
	NodeNamed(ctx context.Context, name string) (spot.Node, error)
	// Allowed asks whether we may make a request.
	Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error)
}

// checkedCloud is what a self-check asks of AWS.
type checkedCloud interface {
	// Readable asks EC2 and Auto Scaling for as little as they can be asked for.
	Readable(ctx context.Context, cluster string) error
	// InstancesOf reads instances by their ids; those that EC2 does not know are left out.
	InstancesOf(ctx context.Context, ids []string) (map[string]spot.Instance, error)
}

func (s selfChecker) run(ctx context.Context) SelfCheck {
	limit := selfCheckLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-selfCheckMargin)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	told := SelfCheck{Version: selfCheckVersion, Result: Ready, Program: s.program, Cluster: s.cfg.Cluster, Overdue: []spot.OverdueInstance{}}
	told.Checks = askAll(ctx, slices.Concat([]probe{s.logIn(), s.aws()}, s.network(), s.readTexts()))
	loggedIn, aws := told.Checks[0].OK, told.Checks[1].OK
	if loggedIn {
		told.Checks = append(told.Checks, askAll(ctx, s.rights())...)
	} else {
		told.Checks = append(told.Checks, unasked("rbac", "log-in"))
	}
	switch {
	case !loggedIn:
		told.Checks = append(told.Checks, unasked("marked nodes", "log-in"))
	case !aws:
		told.Checks = append(told.Checks, unasked("marked nodes", "aws"))
	default:
		var overdue []spot.OverdueInstance
		marked := askAll(ctx, []probe{s.lookForOverdue(&overdue)})
		told.Checks = append(told.Checks, marked...)
		if told.looked = marked[0].OK; told.looked {
			for _, o := range overdue {
				told.Overdue, told.Checks = append(told.Overdue, o), append(told.Checks, overdueCheck(o))
			}
		}
	}
	for _, c := range told.Checks {
		if !c.OK {
			told.Result = NotReady
		}
	}
	return told
}

// unasked is a check that needs another one that has failed.
func unasked(name, needs string) Check {
	return Check{Name: name, Detail: "not asked: it needs " + needs, Advice: fmt.Sprintf("see %q", needs)}
}
