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

	// selfCheckLimit is the time limit of a self-check.
	selfCheckLimit = 25 * time.Second

	// selfCheckMargin is the time kept for the report if the invocation ends earlier.
	selfCheckMargin = 2 * time.Second
)

// Readiness is the result of a self-check.
type Readiness string

const (
	Ready    Readiness = "ready"
	NotReady Readiness = "not-ready"
)

// SelfCheck reports whether the function is ready to act, in any mode, and the failed checks.
type SelfCheck struct {
	Version int                    `json:"version"`
	Result  Readiness              `json:"result"`
	Program string                 `json:"program"` // the function's version
	Cluster string                 `json:"cluster"`
	Checks  []Check                `json:"checks"`
	Overdue []spot.OverdueInstance `json:"overdue"` // cordoned nodes whose instance still runs long after its deadline

	// Warnings lists nodes that have been cordoned for long and may be restored.
	Warnings []string `json:"warnings,omitempty"`

	looked bool // Overdue is complete
}

// Check is one requirement of the function.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Skipped bool   `json:"skipped,omitempty"` // it depends on a check that failed
	Detail  string `json:"detail,omitempty"`
	Advice  string `json:"advice,omitempty"` // what to do if it is not OK
}

// metrics returns Ready and, if known, the number of overdue instances.
func (s SelfCheck) metrics() []metric {
	var m measured
	m.count("Ready", boolToInt(s.Result == Ready))
	if s.looked {
		m.count("Overdue", len(s.Overdue))
	}
	return m
}

// selfChecker makes the function's read requests, and checks the permissions for its write requests. It writes nothing,
// except that it restores nodes after rehearsals that were killed.
type selfChecker struct {
	cfg     Config
	cluster checkedCluster
	cloud   checkedCloud
	texts   []text
	program string

	// reach connects to the API server, and castai to CAST AI; nil to skip.
	reach, castai func(context.Context) error
}

// checkedCluster is the cluster as the self-check uses it.
type checkedCluster interface {
	spot.CordonedNodeLister
	NodeNamed(ctx context.Context, name string) (spot.Node, error)
	ChangeNode(ctx context.Context, n spot.Node, change func(spot.Node) spot.Node) (spot.Node, error)
	// Allowed checks a permission with a SelfSubjectAccessReview.
	Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error)
}

// checkedCloud is AWS as the self-check uses it.
type checkedCloud interface {
	// Readable makes one minimal read request each to EC2 and Auto Scaling.
	Readable(ctx context.Context, cluster string) error
	// InstancesOf reads instances by ID. The result omits unknown ones.
	InstancesOf(ctx context.Context, ids []string) (map[string]spot.Instance, error)
}

func (s selfChecker) run(ctx context.Context) SelfCheck {
	limit := selfCheckLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-selfCheckMargin)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	result := SelfCheck{Version: selfCheckVersion, Result: Ready, Program: s.program, Cluster: s.cfg.Cluster, Overdue: []spot.OverdueInstance{}}
	result.Checks = askAll(ctx, slices.Concat([]probe{s.logIn(), s.aws()}, s.network(), s.readTexts(), s.autoscaler()))
	loggedIn, aws := result.Checks[0].OK, result.Checks[1].OK
	for _, c := range result.Checks {
		if !loggedIn && !c.OK && (c.Name == tokenCheck || c.Name == caCheck) {
			result.Checks[0].Advice = fmt.Sprintf("see %q", c.Name)
		}
	}
	if loggedIn {
		result.Checks = append(result.Checks, askAll(ctx, s.permissions())...)
	} else {
		result.Checks = append(result.Checks, skippedCheck("rbac", "authentication"))
	}
	switch {
	case !loggedIn:
		result.Checks = append(result.Checks, skippedCheck("overdue instances", "authentication"))
	case !aws:
		result.Checks = append(result.Checks, skippedCheck("overdue instances", "aws"))
	default:
		var overdue []spot.OverdueInstance
		marked := askAll(ctx, []probe{s.lookForOverdue(&overdue, &result.Warnings)})
		result.Checks = append(result.Checks, marked...)
		if result.looked = marked[0].OK; result.looked {
			for _, o := range overdue {
				result.Overdue, result.Checks = append(result.Overdue, o), append(result.Checks, overdueCheck(o))
			}
		}
	}
	for _, c := range result.Checks {
		if !c.OK {
			result.Result = NotReady
		}
	}
	return result
}

// skippedCheck is a check that depends on a failed one.
func skippedCheck(name, needs string) Check {
	return Check{Name: name, Skipped: true, Detail: "requires " + needs, Advice: fmt.Sprintf("see %q", needs)}
}

// lookForOverdue finds nodes cordoned by kops-spot whose instance still runs long after its deadline, and other nodes
// that have been cordoned for long. It restores nodes after a rehearsal.
func (s selfChecker) lookForOverdue(found *[]spot.OverdueInstance, warnings *[]string) probe {
	const advice = "see the detail: it names the failing request, to the cluster or to EC2"
	return probe{name: "overdue instances", advice: advice, try: func(ctx context.Context) (string, error) {
		now := time.Now()
		nodes, err := s.cluster.CordonedNodes(ctx)
		if err != nil {
			return "", err
		}
		var stays []string
		for _, n := range nodes {
			if n.IsStaleRehearsal(now) && s.cfg.Mode == Act {
				if _, err := s.cluster.ChangeNode(ctx, n, func(n spot.Node) spot.Node {
					if n.IsStaleRehearsal(now) {
						return spot.Restore(n)
					}
					return n
				}); err != nil {
					return "", err
				}
			} else if text := n.CordonStays(now); text != "" {
				stays = append(stays, text)
			}
		}
		instances := map[string]spot.Instance{}
		if due := spot.OverdueCandidates(nodes, now); len(due) > 0 {
			if instances, err = s.cloud.InstancesOf(ctx, due); err != nil {
				return "", err
			}
		}
		*found, *warnings = spot.Overdue(nodes, instances, now), stays
		return fmt.Sprintf("%d cordoned nodes, %d overdue", len(nodes), len(*found)), nil
	}}
}

// overdueCheck returns the failed check of an overdue instance. The instance costs money, but only people terminate it:
// that cannot be undone.
func overdueCheck(o spot.OverdueInstance) Check {
	return Check{
		Name: "overdue: " + o.Node,
		Detail: fmt.Sprintf("instance %s of node %s is still running; its deadline was %s",
			o.Instance, o.Node, o.Since.Format(time.RFC3339)),
		Advice: fmt.Sprintf("terminate the instance (aws ec2 terminate-instances --instance-ids %s), or keep it and "+
			"restore the node (kops-spot restore %s)", o.Instance, o.Node),
	}
}
