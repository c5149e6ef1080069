package onboard

import (
	"context"
	"slices"

	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/change"
)

// What the function's group and its ServiceAccount may do.
var (
	rbac          = mustRead(deploy.RBAC)
	karpenterRBAC = mustRead(deploy.KarpenterRBAC)
	allManifests  = mustRead(deploy.RBAC, deploy.KarpenterRBAC)
)

// Plan says what to change so that the identities can log in, and do what they are to.
func (m Mapping) Plan(ctx context.Context, cluster dynamic.Interface) (MappingPlan, error) {
	s, err := inspect(ctx, cluster)
	if err == nil {
		err = m.manifests().dryRun(ctx, cluster, &s)
	}
	if err != nil {
		return MappingPlan{}, err
	}
	p, err := m.decide(s)
	if err == nil {
		p.Files, err = m.files(p)
	}
	return p, err
}

func (m Mapping) manifests() Manifests {
	if m.Karpenter {
		return allManifests
	}
	return rbac
}

func (m Mapping) decide(s MappingState) (MappingPlan, error) {
	p := MappingPlan{state: s, Backends: map[string]Backend{}}
	if err := m.valid(); err != nil {
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
			p.say(change.Change{Verb: change.Leave, Kind: r.Kind, Name: r.fullName(),
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
	p.addList(listEdit{awsAuthListing(), by[EKSConfigMap], forget}, why[EKSConfigMap])
	p.addObjects(by[CRD], forget, why[CRD])
	p.addList(listEdit{s.file(m.Cluster), by[MountedFile], forget}, why[MountedFile])
	p.unmapped(by[NoBackend], why[NoBackend])
	return p, p.err
}

// whyForget is why what is ours is taken away.
const whyForget = "identities are to be forgotten; all else in it stays"

// rewritten is what becomes of a text that people keep by hand.
const rewritten = "; the file is written anew, and blank lines and quoting in it may change"

// addList adds the edit of a ConfigMap, and for one that is read when the authenticator starts, a rollout.
func (p *MappingPlan) addList(e listEdit, why string) {
	step := mappingStep{ref: e.listing.ref, edit: e.on, update: rewritten, Change: change.Change{Why: why}}
	switch {
	case len(e.know) == 0:
		step.Why, step.remove = whyForget, true
	case p.state.objects[step.ref] == nil && step.ref == awsAuthRef:
		step.Why += "; it is not there yet, and as the nodes of kOps do not need it, it may be made"
	}
	p.add(step)
	if e.listing.backend == MountedFile {
		p.addRollout(e)
	}
}

// addObjects adds the objects that map identities.
func (p *MappingPlan) addObjects(know, forget []Identity, why string) {
	for _, id := range know {
		e := objectEdit{ref: mappingRef(p.state, id), id: id}
		p.add(mappingStep{ref: e.ref, edit: e.on, Change: change.Change{Why: why}})
	}
	for _, id := range forget {
		for _, o := range p.state.mappingOf(id.canonical()) {
			e := objectEdit{refOf(o), id, true}
			p.add(mappingStep{ref: e.ref, edit: e.on, remove: true, Change: change.Change{Why: whyForget}})
		}
	}
}

// unmapped says of identities that cannot log in as themselves what becomes of them: the function gets a token.
func (p *MappingPlan) unmapped(ids []Identity, why string) {
	for _, id := range ids {
		if id.Kind == RoleIdentity {
			p.NeedsToken = true
			continue
		}
		p.say(change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN,
			Why: why + ": it cannot be let into the cluster, and works with AWS alone"})
	}
	switch {
	case p.NeedsToken:
		filled := func(ctx context.Context, cluster dynamic.Interface) error {
			_, _, err := readToken(ctx, cluster)
			return err
		}
		p.add(mappingStep{ref: tokenRef, edit: tokenEdit, then: filled, Change: change.Change{
			Why: why + ": the function logs in with this token of its ServiceAccount, which is put into Secrets Manager"}})
	case isOurObject(p.state.objects[tokenRef]):
		p.say(change.Change{Verb: change.Leave, Kind: tokenRef.Kind, Name: tokenRef.fullName(),
			Why: "the function may still log in with it; once it logs in with IAM, delete it"})
	}
}

// PlanRemoval says how the cluster forgets the identities and what they may do: wherever they are mapped, since the
// authenticator may have been told since to look elsewhere.
func (m Mapping) PlanRemoval(ctx context.Context, cluster dynamic.Interface) (MappingPlan, error) {
	s, err := inspect(ctx, cluster)
	if err != nil {
		return MappingPlan{}, err
	}
	return m.decideRemoval(s)
}

func (m Mapping) decideRemoval(s MappingState) (MappingPlan, error) {
	p := MappingPlan{state: s}
	if err := m.valid(); err != nil {
		return p, err
	}
	p.addList(listEdit{listing: awsAuthListing(), forget: m.Identities}, "")
	p.addObjects(nil, m.Identities, "")
	p.addList(listEdit{listing: s.file(m.Cluster), forget: m.Identities}, "")
	refs := []ref{tokenRef}
	for _, o := range slices.Backward(allManifests) {
		refs = append(refs, refOf(o))
	}
	for _, r := range refs {
		p.add(mappingStep{ref: r, edit: deleteIf(isOurObject), remove: true,
			keep: "it does not say that kops-spot has made it: delete it if nobody needs it"})
	}
	return p, p.err
}
