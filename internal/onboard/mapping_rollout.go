package onboard

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

	// unnoted stands there when the file has changed, and nothing in it was noted as ours: an entry that was put there by
	// hand as we would have made it, or whose note was lost.
	unnoted = "none"

	rolloutLimit = 5 * time.Minute // a pod on each control-plane node, one after another
	rolloutPoll  = time.Second
)

// addRollout has the authenticator's pods made anew, if they have not read its file since our grants in it have changed.
func (p *MappingPlan) addRollout(e listEdit) {
	daemonSet, now := p.state.objects[authenticatorRef], p.state.objects[e.listing.ref]
	if daemonSet == nil || p.err != nil {
		return
	}
	next, _, _ := e.on(now) // as in the row before, where an error would have been seen
	n, err := noteOf(next)
	if err != nil {
		p.err = err
		return
	}
	pods := []string{"spec", "template", "metadata", "annotations", annotationGrants}
	mark, read := n.fingerprint(), textAt(daemonSet, pods...)
	if mark == "" && (read == unnoted || read == "" && !reflect.DeepEqual(now, next)) {
		mark = unnoted
	}
	step := mappingStep{ref: authenticatorRef, then: rolledOut, remove: len(e.know) == 0, Change: change.Change{
		Why: "a rollout: the file is read when a pod starts. The pods go one after another, and while one does, " +
			"log-ins with IAM to the API server beside it fail for some seconds"}}
	if !step.remove {
		step.keep = cmp.Or(rolloutLeft(daemonSet), "its pods have read the file since")
	}
	if textAt(daemonSet, "spec", "updateStrategy", "type") == "OnDelete" {
		step.then = nil
		step.Why = "the file is read when a pod starts, and these pods are made anew by whoever deletes them: then delete " +
			"them, one after another; while one is gone, log-ins with IAM to the API server beside it fail"
	}
	// Another annotation of the pods has them all made anew.
	step.edit = func(now object) (object, change.Plan, error) {
		next := now.DeepCopy()
		switch {
		case now == nil || textAt(now, pods...) == mark:
		case mark == "":
			unset(next, pods...)
		default:
			set(next, mark, pods...)
		}
		return next, nil, nil
	}
	p.add(step)
}

// rolledOut waits until all pods of the authenticator are made by its template, and serve.
func rolledOut(ctx context.Context, cluster dynamic.Interface) error {
	return await(ctx, rolloutLimit, rolloutPoll, "the rollout", func(ctx context.Context) (string, error) {
		o, err := authenticatorRef.get(ctx, cluster)
		if left := rolloutLeft(o); left != "" {
			return left + ": see kubectl --namespace=" + kubeSystem + " get pods", err
		}
		return "", err
	})
}

// rolloutLeft says how far a rollout is; empty if it has ended, or if there is nothing any more to roll out.
func rolloutLeft(o object) string {
	if o == nil {
		return ""
	}
	if numberAt(o, "status", "observedGeneration") < numberAt(o, "metadata", "generation") {
		return "it has not begun"
	}
	want := numberAt(o, "status", "desiredNumberScheduled")
	updated, serving := numberAt(o, "status", "updatedNumberScheduled"), numberAt(o, "status", "numberAvailable")
	if updated >= want && serving >= want {
		return ""
	}
	return fmt.Sprintf("of %d pods, %d are new and %d serve", want, updated, serving)
}
