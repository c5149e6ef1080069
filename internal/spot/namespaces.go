package spot

import (
	"context"
	"maps"
	"time"
)

// namespaceFirst is how long a forced delete waits for what its namespace says about it: a pod that gets no SIGTERM is
// worse than one that was to be spared.
const namespaceFirst = time.Second

// namespaces is what is known of the namespaces of pods whose eviction is refused. Nothing else needs it, so no drain
// that goes well asks for it.
type namespaces struct {
	states  map[string]*namespaceState
	answers chan namespaceAnswer
}

type namespaceState struct {
	since time.Time // when it was asked for
	known bool
	force string // the value of AnnotationForce
	err   error
}

type namespaceAnswer struct {
	name        string
	annotations map[string]string
	err         error
}

// applied is the pod with what its namespace says, where it says nothing itself.
func (n *namespaces) applied(p Pod) Pod {
	s := n.states[p.Namespace]
	if s == nil || s.force == "" || p.Annotations[AnnotationForce] != "" {
		return p
	}
	p.Annotations = maps.Clone(p.Annotations)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[AnnotationForce] = s.force
	return p
}

// wait is when the pod may be deleted past its budget at the earliest, as far as its namespace matters.
func (n *namespaces) wait(p Pod) time.Time {
	s := n.states[p.Namespace]
	if s == nil || s.known || p.Annotations[AnnotationForce] != "" {
		return time.Time{}
	}
	return s.since.Add(namespaceFirst)
}

// askNamespace asks, once, what the namespace of a refused pod says, if it matters.
func (d *podDrain) askNamespace(ctx context.Context, p Pod) {
	if !d.plan.forced || p.Annotations[AnnotationForce] != "" || d.namespaces.states[p.Namespace] != nil {
		return
	}
	if d.namespaces.states == nil {
		d.namespaces.states = map[string]*namespaceState{}
	}
	d.namespaces.states[p.Namespace] = &namespaceState{since: time.Now()}
	go func() {
		a := namespaceAnswer{name: p.Namespace}
		a.err = backoff{250 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) (err error) {
			a.annotations, err = d.Cluster.NamespaceAnnotations(ctx, p.Namespace)
			return err
		})
		select {
		case d.namespaces.answers <- a:
		case <-ctx.Done():
		}
	}()
}

// seeNamespace takes the answer in: the fates of its pods that have not been told to end may be others now.
func (d *podDrain) seeNamespace(a namespaceAnswer) {
	s := d.namespaces.states[a.name]
	s.known, s.err, s.force = true, a.err, a.annotations[AnnotationForce]
	if s.force == "" {
		return
	}
	for _, p := range d.pods {
		if p.pod.Namespace != a.name {
			continue
		}
		p.pod = d.namespaces.applied(p.pod)
		if p.fate.Verb == Evict && !p.told {
			p.fate = d.plan.Fate(p.pod, time.Now(), false)
		}
	}
	d.log("the namespace says whether its pods may be deleted past their budgets", "namespace", a.name, "force", s.force)
}
