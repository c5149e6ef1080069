package identitymap

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// What the function's group and its ServiceAccount may do.
var (
	rbac          = mustRead(deploy.RBAC)
	karpenterRBAC = mustRead(deploy.KarpenterRBAC)
	allManifests  = mustRead(deploy.RBAC, deploy.KarpenterRBAC)
)

// Plan says what to change so that the identities can log in, and do what they are to.
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

func (m Mapping) manifests() Manifests {
	if m.Karpenter {
		return allManifests
	}
	return rbac
}

func (m Mapping) decide(s state) (Plan, error) {
	p := Plan{state: s, Backends: map[string]Backend{}}
	if err := m.validate(); err != nil {
		return p, err
	}
	a, there, err := s.authenticator()
	if err != nil {
		return p, err
	}
	p.ClusterID = a.clusterID
	p.addManifests(m.manifests(), map[string]string{
		"ServiceAccount": "whom the function can log in as where IAM is not known",
		"":               "what the function may do in the cluster"})
	for _, o := range karpenterRBAC {
		if r := refOf(o); s.objects[r] != nil && !m.Karpenter {
			p.addRemarks(change.Change{Verb: change.Leave, Kind: r.Kind, Name: r.fullName(),
				Why: "nobody has asked for it this time; if the function is not to replace Karpenter's nodes any more, delete it"})
		}
	}
	var forget []Identity
	by, why := map[Backend][]Identity{}, map[Backend]string{}
	for _, id := range m.Identities {
		if len(id.Groups) == 0 {
			forget = append(forget, id)
			continue
		}
		b, reason, err := s.backend(a, there, id)
		if err != nil {
			return p, err
		}
		p.Backends[id.ARN], by[b], why[b] = b, append(by[b], id), reason
	}
	p.addConfigMap(configMapEdit{awsAuthBackend(), by[EKSConfigMap], forget}, why[EKSConfigMap])
	p.addCRDs(by[CRD], forget, why[CRD])
	p.addConfigMap(configMapEdit{s.file(m.Cluster), by[MountedFile], forget}, why[MountedFile])
	p.addUnmapped(by[NoBackend], why[NoBackend])
	return p, p.err
}

// reasonRemoved is why what is ours is taken away.
const reasonRemoved = "identities are to be forgotten; all else in it stays"

// rewritten is what becomes of a text that people keep by hand.
const rewritten = "; the file is written anew, and blank lines and quoting in it may change"

// addConfigMap adds the edit of a ConfigMap, and for one that is read when the authenticator starts, a rollout.
func (p *Plan) addConfigMap(e configMapEdit, why string) {
	s := step{ref: e.backend.ref, mutate: e.mutate, update: rewritten, Change: change.Change{Why: why}}
	switch {
	case len(e.add) == 0:
		s.Why, s.remove = reasonRemoved, true
	case p.state.objects[s.ref] == nil && s.ref == awsAuthRef:
		s.Why += "; it is not there yet, and as the nodes of kOps do not need it, it may be made"
	}
	p.addEdit(s)
	if e.backend.backend == MountedFile {
		p.addRollout(e)
	}
}

// addCRDs adds the objects that map identities.
func (p *Plan) addCRDs(add, remove []Identity, why string) {
	for _, id := range add {
		e := crdEdit{ref: crdRef(p.state, id), id: id}
		p.addEdit(step{ref: e.ref, mutate: e.mutate, Change: change.Change{Why: why}})
	}
	for _, id := range remove {
		for _, o := range p.state.crdsFor(id.canonicalARN()) {
			e := crdEdit{refOf(o), id, true}
			p.addEdit(step{ref: e.ref, mutate: e.mutate, remove: true, Change: change.Change{Why: reasonRemoved}})
		}
	}
}

// unmapped says of identities that cannot log in as themselves what becomes of them: the function gets a token.
func (p *Plan) addUnmapped(ids []Identity, why string) {
	for _, id := range ids {
		if id.Kind == Role {
			p.NeedsToken = true
			continue
		}
		p.addRemarks(change.Change{Verb: change.Leave, Kind: id.kindName(), Name: id.ARN,
			Why: why + ": it cannot be let into the cluster, and works with AWS alone"})
	}
	switch {
	case p.NeedsToken:
		filled := func(ctx context.Context, cluster dynamic.Interface) error {
			_, _, err := ReadToken(ctx, cluster)
			return err
		}
		p.addEdit(step{ref: tokenRef, mutate: mutateToken, then: filled, Change: change.Change{
			Why: why + ": the function logs in with this token of its ServiceAccount, which is put into Secrets Manager"}})
	case isManaged(p.state.objects[tokenRef]):
		p.addRemarks(change.Change{Verb: change.Leave, Kind: tokenRef.Kind, Name: tokenRef.fullName(),
			Why: "the function may still log in with it; once it logs in with IAM, delete it"})
	}
}

// PlanRemoval says how the cluster forgets the identities and what they may do: wherever they are mapped, since the
// authenticator may have been told since to look elsewhere.
func (m Mapping) PlanRemoval(ctx context.Context, cluster dynamic.Interface) (Plan, error) {
	s, err := inspect(ctx, cluster)
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
	p.addConfigMap(configMapEdit{backend: awsAuthBackend(), remove: m.Identities}, "")
	p.addCRDs(nil, m.Identities, "")
	p.addConfigMap(configMapEdit{backend: s.file(m.Cluster), remove: m.Identities}, "")
	refs := []ref{tokenRef}
	for _, o := range slices.Backward(allManifests) {
		refs = append(refs, refOf(o))
	}
	for _, r := range refs {
		p.addEdit(step{ref: r, mutate: deleteIf(isManaged), remove: true,
			keep: "it does not say that kops-spot has made it: delete it if nobody needs it"})
	}
	return p, p.err
}

// mutateFunc makes of an object what it is to be; nil if it is to go, and of nil if it is not there. It is pure and leaves now
// as it is, so that what is written can be made anew of what is there then: somebody may have changed it since the plan
// was shown. remarks are what else is worth telling.
type mutateFunc func(now object) (next object, remarks change.Plan, err error)

// step is one row of a plan, and its single write: of an edit, or of a manifest.
type step struct {
	change.Change
	ref      ref
	mutate   mutateFunc
	manifest object

	// then is what has to come of the write before the step is done.
	then func(ctx context.Context, cluster dynamic.Interface) error

	update string // what else is to be known, if more changes than our ownership
	keep   string // why, if there is nothing to do
	remove bool   // it takes away: where nothing is ours, there is nothing to tell
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

// put puts a row into the plan.
func (p *Plan) addStep(verb change.Verb, s step, diff ...string) {
	s.Verb, s.Kind, s.Name, s.Diff = verb, s.ref.Kind, s.ref.fullName(), diff
	p.steps, p.Changes = append(p.steps, s), append(p.Changes, s.Change)
}

// say puts rows into the plan that change nothing.
func (p *Plan) addRemarks(remarks ...change.Change) {
	for _, c := range remarks {
		p.steps, p.Changes = append(p.steps, step{Change: c}), append(p.Changes, c)
	}
}

// addEdit adds the row of an edit, based on the object that was read.
func (p *Plan) addEdit(s step) {
	now := p.state.objectOf(s.ref)
	next, remarks, err := s.mutate(now)
	switch {
	case err != nil:
		p.err = cmp.Or(p.err, err)
	case now == nil && next == nil:
		return
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
}

// Steps returns the plan's rows with their writes.
func (p Plan) Steps() (steps []change.Step[dynamic.Interface]) {
	for _, s := range p.steps {
		one := change.Step[dynamic.Interface]{Change: s.Change}
		if s.Changes() {
			one.Write = s.write
		}
		steps = append(steps, one)
	}
	return steps
}

// Apply carries out the plan. After an interruption, a new plan contains the rest.
func (p Plan) Apply(ctx context.Context, cluster dynamic.Interface) error {
	return change.Apply(ctx, cluster, p.Steps())
}

// TokenUID is the UID of the ServiceAccount token Secret that the cluster has; empty if it has none.
func (p Plan) TokenUID() string { return stringAt(p.state.objects[tokenRef], "metadata", "uid") }

// objectDiff shows what changes in an object, but for what is written by the API server, and for our ownership: of a text,
// the lines. It is empty if nothing does.
func objectDiff(now, next object) (lines []string) {
	was, is := map[string]string{}, map[string]string{}
	flatten(now.Object, "", was)
	flatten(next.Object, "", is)
	both := maps.Clone(was)
	maps.Copy(both, is)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		before, there := was[path]
		after, stays := is[path]
		if there == stays && before == after || slices.Contains(hiddenInDiff, path) {
			continue
		}
		if now.GetKind() == "Secret" {
			lines = append(lines, "  "+path+" changes")
			continue
		}
		lines = append(lines, "  "+path+":")
		lines = append(lines, awsadmin.DiffDocuments(before, after)...)
	}
	return lines
}

// hiddenInDiff is what a diff does not show.
var hiddenInDiff = []string{"metadata.annotations." + annotationOwnership, "metadata.managedFields", "metadata.resourceVersion",
	"metadata.generation", "metadata.uid", "metadata.creationTimestamp"}

// leaves are the values of an object that are no maps, as text, by their paths.
func flatten(v map[string]any, path string, into map[string]string) {
	for key, value := range v {
		at := strings.TrimPrefix(path+"."+key, ".")
		switch value := value.(type) {
		case map[string]any:
			flatten(value, at, into)
		case string:
			into[at] = value
		default:
			text, err := yaml.Marshal(value)
			if err != nil {
				text = []byte(fmt.Sprint(value))
			}
			into[at] = string(text)
		}
	}
}
