package identitymap

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

const (
	// annotationGrants is set on the authenticator's pods: the grants in its file when they were created. It shows that
	// a run was interrupted between changing the file and restarting the pods.
	annotationGrants = spot.AnnotationPrefix + "grants"

	// unowned is its value after the file has changed without a grant of ours: we have removed an entry that somebody
	// else has added in our form, or whose annotation was lost.
	unowned = "none"

	rolloutLimit = 5 * time.Minute // for one pod on each control-plane node, one after another
	rolloutPoll  = time.Second
)

// addRollout restarts the authenticator's pods if they have not read its file since our grants in it changed.
func (p *Plan) addRollout(file ref, mutate mutateFunc, remove bool) {
	daemonSet, now := p.state.objects[authenticatorRef], p.state.objects[file]
	if daemonSet == nil || p.err != nil {
		return
	}
	next, _, _ := mutate(now) // as in the row before, which has reported any error
	n, err := ownershipOf(next)
	if err != nil {
		p.err = err
		return
	}
	pods := []string{"spec", "template", "metadata", "annotations", annotationGrants}
	mark, read := n.fingerprint(), stringAt(daemonSet, pods...)
	if mark == "" && (read == unowned || read == "" && !reflect.DeepEqual(now, next)) {
		mark = unowned
	}
	s := step{ref: authenticatorRef, then: waitForRollout, remove: remove, Change: change.Change{
		Why: "a rolling restart, since a pod reads the file only when it starts. While a pod restarts, IAM authentication " +
			"at the API server beside it fails for some seconds"}}
	if !remove {
		s.keep = cmp.Or(rolloutStatus(daemonSet), "its pods have read the current file")
	}
	if asDaemonSet(daemonSet).Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		s.then = nil
		s.Why = "a pod reads the file only when it starts, and the update strategy is OnDelete: then delete the pods, " +
			"one after another; while one restarts, IAM authentication at the API server beside it fails"
	}
	// A changed annotation in the pod template restarts all pods.
	s.mutate = func(now object) (object, change.Plan, error) {
		next := now.DeepCopy()
		switch {
		case now == nil || stringAt(now, pods...) == mark:
		case mark == "":
			unset(next, pods...)
		default:
			set(next, mark, pods...)
		}
		return next, nil, nil
	}
	p.addEdit(s)
}

func waitForRollout(ctx context.Context, cluster dynamic.Interface) error {
	return waitFor(ctx, rolloutLimit, rolloutPoll, "the rollout", func(ctx context.Context) (string, error) {
		o, err := authenticatorRef.get(ctx, cluster)
		if status := rolloutStatus(o); status != "" {
			return status + ": see kubectl --namespace=" + kubeSystem + " get pods", err
		}
		return "", err
	})
}

// rolloutStatus returns the progress of a rollout; empty if it is complete, or if there is no DaemonSet.
func rolloutStatus(o object) string {
	ds := asDaemonSet(o)
	switch is, want := ds.Status, ds.Status.DesiredNumberScheduled; {
	case is.ObservedGeneration < ds.Generation:
		return "the rollout has not started"
	case is.UpdatedNumberScheduled < want || is.NumberAvailable < want:
		return fmt.Sprintf("of %d pods, %d are updated and %d available", want, is.UpdatedNumberScheduled, is.NumberAvailable)
	}
	return ""
}
