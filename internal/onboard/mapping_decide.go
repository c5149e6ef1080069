package onboard

import (
	"slices"

	"github.com/castai/kops-spot/internal/change"
)

// Plan decides what to change so that the identities can log in.
func (m Mapping) Plan(s MappingState) (MappingPlan, error) {
	if err := m.valid(); err != nil {
		return MappingPlan{}, err
	}
	a, there, err := s.authenticator()
	if err != nil {
		return MappingPlan{}, err
	}
	p := MappingPlan{Backends: map[string]Backend{}, ClusterID: a.clusterID}
	if err := m.rules(&p, s, false); err != nil {
		return p, err
	}
	by := map[Backend][]Identity{}
	why := map[Backend]string{}
	known, forgotten := m.known()
	for _, id := range known {
		b, reason, err := m.backend(s, a, there, id)
		if err != nil {
			return p, err
		}
		p.Backends[id.ARN] = b
		by[b] = append(by[b], id)
		why[b] = reason
	}
	awsAuth := listEdit{awsAuthListing(), by[EKSConfigMap], forgotten}
	if err := p.addList(s, awsAuth, why[EKSConfigMap]); err != nil {
		return p, err
	}
	if err := p.addObjects(s, by[CRD], forgotten, why[CRD]); err != nil {
		return p, err
	}
	file := listEdit{fileListing(configRef(s.objects[authenticatorRef]), m.Cluster), by[MountedFile], forgotten}
	if err := p.addList(s, file, why[MountedFile]); err != nil {
		return p, err
	}
	return p, m.unmapped(&p, s, by[NoBackend], why[NoBackend])
}

// whyForget is why what is ours is taken away.
const whyForget = "identities are to be forgotten; all else in it stays"

// rewritten is what becomes of a text that people keep by hand.
const rewritten = "; the file is written anew, and blank lines and quoting in it may change"

// addList adds the edit of a ConfigMap, and for one that is read when the authenticator starts, a rollout.
func (p *MappingPlan) addList(s MappingState, e listEdit, why string) error {
	step := mappingStep{ref: e.listing.ref, edit: e, why: why, update: rewritten}
	switch {
	case len(e.know) == 0:
		step.why, step.remove = whyForget, true
	case s.objects[step.ref] == nil && step.ref == awsAuthRef:
		step.why += "; it is not there yet, and as the nodes of kOps do not need it, it may be made"
	}
	if err := p.add(s, step); err != nil || e.listing.backend != MountedFile {
		return err
	}
	return p.addRollout(s, e)
}

// addObjects adds the objects that map identities.
func (p *MappingPlan) addObjects(s MappingState, know, forget []Identity, why string) error {
	for _, id := range know {
		ref := mappingRef(s, id)
		if err := p.add(s, mappingStep{ref: ref, edit: objectEdit{ref: ref, id: id}, why: why}); err != nil {
			return err
		}
	}
	for _, id := range forget {
		for _, o := range s.mappingOf(id.canonical()) {
			ref := mappingsRef
			ref.Name = o.Text("metadata", "name")
			if err := p.add(s, mappingStep{ref: ref, edit: objectEdit{ref, id, true}, why: whyForget, remove: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmapped says of identities that cannot log in as themselves what becomes of them: the function gets a token.
func (m Mapping) unmapped(p *MappingPlan, s MappingState, ids []Identity, why string) error {
	for _, id := range ids {
		if id.Kind == RoleIdentity {
			p.NeedsToken = true
			continue
		}
		p.Changes = append(p.Changes, change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN,
			Why: why + ": it cannot be let into the cluster, and works with AWS alone"})
	}
	if p.NeedsToken {
		return p.add(s, mappingStep{ref: tokenRef, edit: tokenEdit{},
			why: why + ": the function logs in with this token of its ServiceAccount, which is put into Secrets Manager"})
	}
	if s.objects[tokenRef].Text("metadata", "labels", labelManagedBy) == managedBy {
		p.Changes = append(p.Changes, change.Change{Verb: change.Leave, Kind: tokenRef.Kind, Name: tokenRef.FullName(),
			Why: "the function may still log in with it; once it logs in with IAM, delete it"})
	}
	return nil
}

// rules adds what the function's group and its ServiceAccount may do.
func (m Mapping) rules(p *MappingPlan, s MappingState, remove bool) error {
	objects, err := manifestObjects()
	if err != nil {
		return err
	}
	refs := sortedRefs(objects)
	if remove {
		slices.Reverse(refs)
	}
	for _, ref := range refs {
		step := mappingStep{ref: ref, edit: overlay{manifest: objects[ref], remove: remove}, why: "what the function may do in the cluster"}
		if ref.Kind == "ServiceAccount" {
			step.why = "whom the function can log in as where IAM is not known"
		}
		now := s.objects[ref]
		switch {
		case remove:
			step.why, step.keep, step.remove = "", notOurs, true
		case isKarpenters(ref) && !m.Karpenter:
			if now != nil {
				p.Changes = append(p.Changes, change.Change{Verb: change.Leave, Kind: ref.Kind, Name: ref.FullName(),
					Why: "nobody has asked for it this time; if the function is not to replace Karpenter's nodes any more, delete it"})
			}
			continue
		case rebound(now, objects[ref]):
			step.why += "; it is bound to another role, so it is deleted and made anew"
		}
		if err := p.add(s, step); err != nil {
			return err
		}
	}
	return nil
}
