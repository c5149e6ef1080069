package identitymap

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Plan returns what to change so that the identities have access.
func (m Mapping) Plan(ctx context.Context, cluster dynamic.Interface) (Plan, error) {
	s, err := inspect(ctx, cluster)
	if err == nil {
		err = m.manifests().dryRun(ctx, cluster, &s)
	}
	if err != nil {
		return Plan{}, err
	}
	p, err := m.decide(s)
	if err == nil {
		p.Files, err = m.export(p)
	}
	return p, err
}

func (m Mapping) decide(s state) (Plan, error) {
	p := Plan{state: s, Backends: map[string]Backend{}}
	if err := m.validate(); err != nil {
		return p, err
	}
	a, exists, err := s.authenticator()
	if err != nil {
		return p, err
	}
	p.ClusterID = a.clusterID
	p.addProblems(a)
	p.addManifests(m.manifests(), whyRBAC)
	for _, o := range karpenterRBAC {
		if r := refOf(o); s.objects[r] != nil && !m.Karpenter {
			p.addRemarks(r.leave("needed only with --karpenter: delete it if the function should not replace Karpenter's nodes"))
		}
	}
	var remove []Identity
	by, why := map[Backend][]Identity{}, map[Backend]string{}
	for _, id := range m.Identities {
		if len(id.Groups) == 0 {
			remove = append(remove, id)
			continue
		}
		b, reason := s.backend(a, exists, id)
		p.Backends[id.ARN], by[b], why[b] = b, append(by[b], id), reason
	}
	p.addConfigMap(awsAuthBackend(), by[EKSConfigMap], remove, why[EKSConfigMap])
	p.addCRDs(by[CRD], remove, why[CRD])
	p.addConfigMap(s.file(m.Cluster), by[MountedFile], remove, why[MountedFile])
	p.addUnmapped(by[NoBackend], why[NoBackend])
	return p, p.err
}

const reasonRemoved = "our entries are removed; the rest stays"

// addConfigMap adds the edit of a ConfigMap, and a restart of the authenticator if it reads that only when it starts.
func (p *Plan) addConfigMap(l configMapBackend, add, remove []Identity, why string) {
	mutate := func(now object) (object, change.Plan, error) { return l.mutate(now, add, remove) }
	s := step{ref: l.ref, mutate: mutate, Change: change.Change{Why: why},
		update: "; the YAML is rewritten, which may change blank lines and quotes"}
	switch {
	case len(add) == 0:
		s.Why, s.remove = reasonRemoved, true
	case p.state.objects[s.ref] == nil && s.ref == awsAuthRef:
		s.Why += "; it does not exist yet, and kOps nodes do not need it"
	}
	if l.backend == MountedFile {
		p.addFile(s)
	} else {
		p.addEdit(s)
	}
	p.addSources(l, add, "+ ", "add this entry to")
	p.addSources(l, remove, "- ", "remove this entry from")
}

// addCRDs adds the IAMIdentityMapping objects.
func (p *Plan) addCRDs(add, remove []Identity, why string) {
	for _, id := range add {
		r := crdRef(p.state, id)
		p.addEdit(step{ref: r, mutate: mutateCRD(r, id, false), Change: change.Change{Why: why}})
	}
	for _, id := range remove {
		for _, o := range p.state.crdsFor(id.canonicalARN()) {
			s := step{ref: refOf(o), remove: true, Change: change.Change{Why: reasonRemoved}}
			s.mutate = mutateCRD(s.ref, id, true)
			p.addEdit(s)
		}
	}
}

// addUnmapped handles identities without a backend: the function gets a token, and the user no access.
func (p *Plan) addUnmapped(ids []Identity, why string) {
	for _, id := range ids {
		if id.Kind == Role {
			p.NeedsToken = true
		} else {
			p.addRemarks(id.leave("%s: it gets no access to the cluster, only to AWS", why))
		}
	}
	switch {
	case p.NeedsToken:
		filled := func(ctx context.Context, cluster dynamic.Interface) error {
			_, _, err := ReadToken(ctx, cluster)
			return err
		}
		p.addEdit(step{ref: tokenRef, mutate: mutateToken, then: filled, Change: change.Change{
			Why: why + ": the function authenticates with this token of its ServiceAccount, copied to Secrets Manager"}})
	case isManaged(p.state.objects[tokenRef]):
		p.addRemarks(tokenRef.leave("the function may still use it: delete it once the function authenticates with IAM"))
	}
}

// PlanRemoval returns how to remove the identities and the RBAC. It looks in all backends, since the authenticator's
// mode may have changed.
func (m Mapping) PlanRemoval(ctx context.Context, cluster dynamic.Interface) (Plan, error) {
	s, err := inspect(ctx, cluster)
	if err == nil {
		err = s.readBindings(ctx, cluster)
	}
	if err != nil {
		return Plan{}, err
	}
	return m.decideRemoval(s)
}

func (m Mapping) decideRemoval(s state) (Plan, error) {
	p := Plan{state: s}
	if err := m.validate(); err != nil {
		return p, err
	}
	if !m.IdentitiesOnly {
		m.Identities = s.withFunctions(m.Identities)
	}
	p.addConfigMap(awsAuthBackend(), nil, m.Identities, "")
	p.addCRDs(nil, m.Identities, "")
	p.addConfigMap(s.file(m.Cluster), nil, m.Identities, "")
	if m.IdentitiesOnly {
		return p, p.err
	}
	refs := []ref{tokenRef}
	for _, o := range slices.Backward(allManifests) {
		refs = append(refs, refOf(o))
	}
	for _, r := range refs {
		if others := s.boundBy(r); len(others) > 0 {
			p.addRemarks(r.leave("others bind it: " + strings.Join(others, ", ")))
			continue
		}
		p.addRemoval(r)
	}
	return p, p.err
}

// withFunctions adds the roles that earlier runs have mapped for the function: without its stack, nothing else names a role
// that was given by ARN.
func (s state) withFunctions(ids []Identity) []Identity {
	mapped := map[string]Identity{}
	for _, o := range slices.AppendSeq(slices.Clone(s.mappings), maps.Values(s.objects)) {
		if o == nil {
			continue
		}
		n, _ := ownershipOf(o) // the removal reports what it cannot read
		for arn, g := range n.Grants {
			id := Identity{Kind: Role, ARN: arn, Username: cmp.Or(g.Username, "kops-spot"), Groups: g.Groups}
			if slices.Contains(g.Groups, HandlerGroup) && (Mapping{Identities: []Identity{id}}).validate() == nil &&
				!slices.ContainsFunc(ids, func(of Identity) bool { return strings.EqualFold(of.canonicalARN(), arn) }) {
				mapped[arn] = id
			}
		}
	}
	for _, arn := range slices.Sorted(maps.Keys(mapped)) {
		ids = append(ids[:len(ids):len(ids)], mapped[arn])
	}
	return ids
}

// addRemoval deletes an object if it is ours.
func (p *Plan) addRemoval(r ref) {
	p.addEdit(step{ref: r, mutate: deleteIf(isManaged), remove: true,
		keep: "it lacks the label of kops-spot: delete it if nobody needs it"})
}

// mutateFunc turns an object into what it should be; nil means that it does not exist. It does not modify now, so that
// a write can run it again on an object that has changed since the plan was shown. remarks are other rows of the plan.
type mutateFunc func(now object) (next object, remarks change.Plan, err error)

// step is a row of a plan and its single write: an edit or a manifest.
type step struct {
	change.Change
	ref      ref
	mutate   mutateFunc
	manifest object

	then   func(ctx context.Context, cluster dynamic.Interface) error // waits for the effect of the write
	update string                                                     // added to Why if more than our annotation changes
	keep   string                                                     // Why if nothing changes
	remove bool                                                       // without a row if nothing changes
	undone bool                                                       // Why says who may undo the write
}

func (s step) write(ctx context.Context, cluster dynamic.Interface) (err error) {
	if s.manifest != nil {
		_, err = applyManifest(ctx, cluster, s.manifest)
	} else {
		err = s.ref.change(ctx, cluster, s.mutate)
	}
	if err != nil || s.then == nil {
		return err
	}
	return s.then(ctx, cluster)
}

func (p *Plan) addStep(verb change.Verb, s step, diff ...string) {
	s.Verb, s.Kind, s.Name, s.Diff = verb, s.ref.Kind, s.ref.fullName(), diff
	if s.Changes() && s.ref.Kind != "ConfigMap" && !s.undone { // addSources has more about those
		s.Why += Undo(p.state.objectOf(s.ref))
	}
	p.steps, p.Changes = append(p.steps, s), append(p.Changes, s.Change)
}

func (p *Plan) addRemarks(remarks ...change.Change) {
	for _, c := range remarks {
		p.steps, p.Changes = append(p.steps, step{Change: c}), append(p.Changes, c)
	}
}

// refuse adds what to do about an edit that is not possible. A removal continues with what is independent of it.
func (p *Plan) refuse(s step, err error) {
	if !s.remove {
		p.err = cmp.Or(p.err, err)
		return
	}
	p.addRemarks(change.Change{Verb: change.Review, Kind: s.ref.Kind, Name: s.ref.fullName(), Why: err.Error()})
}

// addEdit adds the row of an edit, based on the object in the state, and reports whether it is possible.
func (p *Plan) addEdit(s step) bool {
	now := p.state.objectOf(s.ref)
	next, remarks, err := s.mutate(now)
	if reason := immutable(now, next); err == nil && reason != "" {
		err = errors.New(reason)
	}
	switch {
	case err != nil:
		p.refuse(s, err)
		return false
	case now == nil && next == nil:
		return true
	case now == nil:
		p.addStep(change.Create, s)
	case next == nil:
		p.addStep(change.Delete, s)
	case !reflect.DeepEqual(now, next):
		diff := objectDiff(now, next)
		if len(diff) > 0 {
			s.Why += s.update
		}
		p.addStep(change.Update, s, diff...)
	case !s.remove:
		s.Why = cmp.Or(s.keep, s.Why)
		p.addStep(change.Keep, s)
	case s.keep != "":
		s.Why = s.keep
		p.addStep(change.Leave, s)
	}
	p.addRemarks(remarks...)
	return true
}

// Steps returns the plan's rows with their writes, for somebody who has access to the cluster.
func Steps[By any](p Plan, cluster func(By) dynamic.Interface) (steps []change.Step[By]) {
	for _, s := range p.steps {
		one := change.Step[By]{Change: s.Change}
		if s.Changes() {
			one.Write = func(ctx context.Context, by By) error { return s.write(ctx, cluster(by)) }
		}
		steps = append(steps, one)
	}
	return steps
}

// TokenUID returns the UID of the ServiceAccount's token Secret; empty if there is none.
func (p Plan) TokenUID() string { return stringAt(p.state.objects[tokenRef], "metadata", "uid") }

// objectDiff returns what changes in an object, without the API server's and controllers' fields, our annotation and
// secret values.
func objectDiff(now, next object) (lines []string) {
	was, is := map[string]string{}, map[string]string{}
	flatten(now.Object, "", was)
	flatten(next.Object, "", is)
	both := maps.Clone(was)
	maps.Copy(both, is)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		before, existed := was[path]
		after, exists := is[path]
		switch {
		case existed == exists && before == after || slices.Contains(hiddenInDiff, path) || strings.HasPrefix(path, "status."):
		case now.GetKind() == "Secret":
			lines = append(lines, "  "+path+" changes")
		default:
			lines = append(append(lines, "  "+path+":"), awsadmin.DiffDocuments(before, after)...)
		}
	}
	return lines
}

var hiddenInDiff = []string{"metadata.annotations." + annotationOwnership, "metadata.managedFields",
	"metadata.resourceVersion", "metadata.generation", "metadata.uid", "metadata.creationTimestamp",
	"metadata.annotations.deployment.kubernetes.io/revision"}

// flatten puts the values of an object, as text, into a map by their paths.
func flatten(v map[string]any, path string, into map[string]string) {
	for key, value := range v {
		at := strings.TrimPrefix(path+"."+key, ".")
		switch value := value.(type) {
		case map[string]any:
			flatten(value, at, into)
		case string:
			into[at] = value
		default:
			text, _ := yaml.Marshal(value) // JSON values never fail
			into[at] = string(text)
		}
	}
}
