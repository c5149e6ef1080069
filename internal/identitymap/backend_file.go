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

// addFile edits the authenticator's file and restarts its pods, unless it would not start.
func (p *Plan) addFile(edit step) {
	rollout, err := p.rollout(edit)
	switch {
	case err != nil:
		p.refuse(edit, err)
	case rollout == nil:
		p.addEdit(edit)
	case p.addEdit(edit):
		p.addEdit(*rollout)
	}
}

// rollout restarts the authenticator's pods if they have not read its file since our grants in it changed; nil if there
// are none. It returns an error if they would not start with the file.
func (p *Plan) rollout(edit step) (*step, error) {
	daemonSet, now := p.state.objects[authenticatorRef], p.state.objects[edit.ref]
	if daemonSet == nil {
		return nil, nil
	}
	next, _, err := edit.mutate(now)
	if err != nil {
		return nil, err
	}
	n, err := ownershipOf(next)
	if err != nil {
		return nil, err
	}
	pods := []string{"spec", "template", "metadata", "annotations", annotationGrants}
	mark, read := n.fingerprint(), stringAt(daemonSet, pods...)
	if mark == "" && (read == unowned || read == "" && !reflect.DeepEqual(now, next)) {
		mark = unowned
	}
	s := &step{ref: authenticatorRef, then: waitForRollout, remove: edit.remove, Change: change.Change{
		Why: "a rolling restart, since a pod reads the file only when it starts. While a pod restarts, IAM authentication " +
			"at the API server beside it fails for some seconds"}}
	status := rolloutStatus(daemonSet)
	if !edit.remove {
		s.keep = cmp.Or(status, "its pods have read the current file")
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
	if status != "" {
		s.Why += "; it also applies pending changes of the DaemonSet: " + status
	}
	if restarted, _, _ := s.mutate(daemonSet); reflect.DeepEqual(now, next) && reflect.DeepEqual(daemonSet, restarted) {
		return s, nil
	}
	a, _, err := p.state.authenticator()
	if err == nil && now != nil {
		err = a.startError(now) // its lines are those that people see
	}
	if err == nil && next != nil {
		err = a.startError(next)
	}
	if err != nil {
		return nil, fmt.Errorf("restarting the authenticator: nothing was changed there: %w: correct it and run this again",
			err)
	}
	return s, nil
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
