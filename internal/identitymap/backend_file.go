package identitymap

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

const (
	// annotationGrants is of the authenticator's pods: which of our grants were in its file when they were made. So a run
	// that was broken off between the file and the pods is seen.
	annotationGrants = spot.AnnotationPrefix + "grants"

	// unowned stands there when the file has changed, and nothing in it was noted as ours: an entry that was put there by
	// hand as we would have made it, or whose ownership was lost.
	unowned = "none"

	rolloutLimit = 5 * time.Minute // a pod on each control-plane node, one after another
	rolloutPoll  = time.Second
)

// addRollout has the authenticator's pods made anew, if they have not read its file since our grants in it have changed.
func (p *Plan) addRollout(e configMapEdit) {
	daemonSet, now := p.state.objects[authenticatorRef], p.state.objects[e.backend.ref]
	if daemonSet == nil || p.err != nil {
		return
	}
	next, _, _ := e.mutate(now) // as in the row before, where an error would have been seen
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
	s := step{ref: authenticatorRef, then: waitForRollout, remove: len(e.add) == 0, Change: change.Change{
		Why: "a rollout: the file is read when a pod starts. The pods go one after another, and while one does, " +
			"log-ins with IAM to the API server beside it fail for some seconds"}}
	if !s.remove {
		s.keep = cmp.Or(rolloutStatus(daemonSet), "its pods have read the file since")
	}
	if stringAt(daemonSet, "spec", "updateStrategy", "type") == "OnDelete" {
		s.then = nil
		s.Why = "the file is read when a pod starts, and these pods are made anew by whoever deletes them: then delete " +
			"them, one after another; while one is gone, log-ins with IAM to the API server beside it fail"
	}
	// Another annotation of the pods has them all made anew.
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

// waitForRollout waits until all pods of the authenticator are made by its template, and serve.
func waitForRollout(ctx context.Context, cluster dynamic.Interface) error {
	return waitFor(ctx, rolloutLimit, rolloutPoll, "the rollout", func(ctx context.Context) (string, error) {
		o, err := authenticatorRef.get(ctx, cluster)
		if left := rolloutStatus(o); left != "" {
			return left + ": see kubectl --namespace=" + kubeSystem + " get pods", err
		}
		return "", err
	})
}

// rolloutStatus says how far a rollout is; empty if it has ended, or if there is nothing any more to roll out.
func rolloutStatus(o object) string {
	if o == nil {
		return ""
	}
	if intAt(o, "status", "observedGeneration") < intAt(o, "metadata", "generation") {
		return "it has not begun"
	}
	want := intAt(o, "status", "desiredNumberScheduled")
	updated, serving := intAt(o, "status", "updatedNumberScheduled"), intAt(o, "status", "numberAvailable")
	if updated >= want && serving >= want {
		return ""
	}
	return fmt.Sprintf("of %d pods, %d are new and %d serve", want, updated, serving)
}
