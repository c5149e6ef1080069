package stage

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/test/bench/contender"
	"github.com/castai/kops-spot/test/testenv"
)

// pause is between a scene's being set and the event: what setting it left to do for the control plane is done by then.
const pause = 300 * time.Millisecond

// Trial is one contender's play of a scene.
type Trial struct {
	ID       string // the user agent of all its requests
	Scene    Scene
	Pods     []Pod
	Start    time.Time     // when the contender got the event
	Ends     time.Time     // when the machines end
	Returned time.Duration // from Start until it thought that it was done
	Received int64         // bytes, on the wire, encrypted and perhaps compressed
	GivenUp  []error       // nodes
}

// Play sets the scene and lets the contender play it.
func (s *Stage) Play(ctx context.Context, c contender.Contender, sc Scene) (Trial, error) {
	s.trials++
	t := Trial{ID: fmt.Sprintf("bench/%d", s.trials), Scene: sc}
	var err error
	if t.Pods, err = s.set(ctx, sc, s.trials); err != nil {
		return t, err
	}
	// Each trial has a proxy of its own, which counts what is answered, and takes all connections away with it: a client
	// that is no longer used would keep them, and keep asking the server whether it is still there.
	way, err := testenv.StartProxy(strings.TrimPrefix(s.cp.AdminConfig().Host, "https://"), sc.Away)
	if err != nil {
		return t, err
	}
	defer way.Close()
	drain, err := c.Prepare(ctx, contender.Place{Nodes: sc.Nodes, Left: sc.left(), Server: "https://" + way.Addr(),
		CA: s.cp.AdminConfig().CAData, Token: s.tokens[c.Account], UserAgent: t.ID})
	if err != nil {
		return t, fmt.Errorf("preparing %s: %w", c.Name, err)
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return t, context.Cause(ctx)
	}
	before := way.Answered()
	t.Start = time.Now()
	t.Ends = t.Start.Add(sc.left())
	t.GivenUp = drain(ctx, contender.EventTime(t.Start, sc.left()))
	t.Returned = time.Since(t.Start)
	t.Received = way.Answered() - before
	return t, s.curtain(ctx, sc)
}

// curtain waits until every pod that was told to end has ended.
func (s *Stage) curtain(ctx context.Context, sc Scene) error {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, sc.Stop+time.Minute, true, func(ctx context.Context) (bool, error) {
		pods, err := s.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the last pod to end: %w", err)
	}
	return nil
}

// Logs are what the API server noted of requests and the kubelets of pods, of all trials so far.
func (s *Stage) Logs(ctx context.Context) ([]testenv.AuditRecord, []testenv.KubeletRecord, error) {
	// A request's record comes a moment after its answer.
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	requests, err := s.cp.AuditLog()
	if err != nil {
		return nil, nil, err
	}
	pods, err := s.cp.KubeletLog()
	return requests, pods, err
}
