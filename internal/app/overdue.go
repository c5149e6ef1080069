package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// lookForOverdue finds the nodes with our marks whose instances should have ended long ago.
func (s selfChecker) lookForOverdue(found *[]spot.Leftover) probe {
	return probe{"marked nodes", "the detail says which of the two could not be asked, the cluster or EC2", func(ctx context.Context) (string, error) {
		now := time.Now()
		nodes, err := s.cluster.MarkedNodes(ctx)
		if err != nil {
			return "", err
		}
		instances := map[string]spot.Instance{}
		if due := spot.DueInstances(nodes, now); len(due) > 0 {
			if instances, err = s.cloud.InstancesOf(ctx, due); err != nil {
				return "", err
			}
		}
		*found = spot.Overdue(nodes, instances, now)
		return fmt.Sprintf("%d marked, %d overdue", len(nodes), len(*found)), nil
	}}
}

// end ends those of the instances that may be ended, where that is asked for, and tells what became of each.
func (s selfChecker) end(ctx context.Context, overdue []spot.Leftover) []spot.OverdueTold {
	told := make([]spot.OverdueTold, len(overdue))
	slots := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	for i, l := range overdue {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			told[i] = l.Told(s.endOne(ctx, l))
		})
	}
	wg.Wait()
	return told
}

// endOne ends an instance, or says why it is kept.
func (s selfChecker) endOne(ctx context.Context, l spot.Leftover) (kept string) {
	if !s.cfg.EndLeftovers {
		return envEndLeftovers + " is never"
	}
	m, err := s.cloud.Membership(ctx, l.Instance.ID)
	if l.MembershipErr = err; err == nil {
		l.Membership = &m
	}
	l.Pods, l.PodsErr = s.cluster.PodsOn(ctx, l.Node.Name)
	if why := s.cfg.Policy.KeepsInstance(l, time.Now()); why != "" {
		return why
	}
	if s.cfg.Mode != Act {
		return envMode + " is " + string(s.cfg.Mode) + ": it would be ended"
	}
	if err := s.cloud.Terminate(ctx, l.Instance.ID); err != nil {
		return "it could not be ended: " + err.Error()
	}
	s.log.Info("ended an instance that EC2 was to take back and has not", "instance", l.Instance.ID, "node", l.Node.Name, "since", l.Since)
	return ""
}
