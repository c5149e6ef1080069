package onboard

import (
	"context"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
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
func (p *MappingPlan) addRollout(s MappingState, e listEdit) error {
	daemonSet, now := s.objects[authenticatorRef], s.objects[e.listing.ref]
	if daemonSet == nil {
		return nil
	}
	next, _, err := e.on(now)
	if err != nil {
		return err
	}
	n, err := noteOf(next)
	if err != nil {
		return err
	}
	mark, read := n.fingerprint(), daemonSet.Text("spec", "template", "metadata", "annotations", annotationGrants)
	if mark == "" && (read == unnoted || read == "" && !sameObject(now, next)) {
		mark = unnoted
	}
	step := mappingStep{ref: authenticatorRef, edit: annotation{annotationGrants, mark}, rollout: true, remove: len(e.know) == 0,
		why: "a rollout: the file is read when a pod starts. The pods go one after another, and while one does, " +
			"log-ins with IAM to the API server beside it fail for some seconds"}
	if !step.remove {
		step.keep = "its pods have read the file since"
	}
	if daemonSet.Text("spec", "updateStrategy", "type") == "OnDelete" {
		step.rollout = false
		step.why = "the file is read when a pod starts, and these pods are made anew by whoever deletes them: then delete them, " +
			"one after another; while one is gone, log-ins with IAM to the API server beside it fail"
	}
	return p.add(s, step)
}

// annotation sets an annotation of a DaemonSet's pods, which has them all made anew; an empty one goes.
type annotation struct{ key, value string }

func (e annotation) on(now kubeadmin.Object) (kubeadmin.Object, change.Plan, error) {
	next := now.Clone()
	path := []string{"spec", "template", "metadata", "annotations", e.key}
	switch {
	case now == nil || now.Text(path...) == e.value:
	case e.value == "":
		next.Unset(path...)
	default:
		next.Set(e.value, path...)
	}
	return next, nil, nil
}

// rolledOut waits until all pods of a DaemonSet are made by its template, and serve.
func rolledOut(ctx context.Context, cluster *kubeadmin.Client, ref kubeadmin.Ref) error {
	ctx, cancel := context.WithTimeout(ctx, rolloutLimit)
	defer cancel()
	for {
		o, err := cluster.Get(ctx, ref)
		if err != nil {
			return cause(ctx, err, "waiting for the rollout of "+ref.String())
		}
		left := rolloutLeft(o)
		if left == "" {
			return nil
		}
		if err := pause(ctx, rolloutPoll); err != nil {
			return fmt.Errorf("waiting for the rollout of %s: %s: see kubectl --namespace=%s get pods: %w", ref, left, ref.Namespace, err)
		}
	}
}

// rolloutLeft says how far a rollout is; empty if it has ended.
func rolloutLeft(o kubeadmin.Object) string {
	if o.Number("status", "observedGeneration") < o.Number("metadata", "generation") {
		return "it has not begun"
	}
	want := o.Number("status", "desiredNumberScheduled")
	updated, serving := o.Number("status", "updatedNumberScheduled"), o.Number("status", "numberAvailable")
	if updated >= want && serving >= want {
		return ""
	}
	return fmt.Sprintf("of %d pods, %d are new and %d serve", want, updated, serving)
}
