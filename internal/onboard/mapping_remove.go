package onboard

// notOurs is why an object stays that has the name of ours.
const notOurs = "it does not say that kops-spot has made it: delete it if nobody needs it"

// PlanRemoval decides how the cluster forgets the identities and what they may do: wherever they are mapped, since the
// authenticator may have been told since to look elsewhere.
func (m Mapping) PlanRemoval(s MappingState) (MappingPlan, error) {
	if err := m.valid(); err != nil {
		return MappingPlan{}, err
	}
	p := MappingPlan{Backends: map[string]Backend{}}
	if err := p.addList(s, listEdit{listing: awsAuthListing(), forget: m.Identities}, ""); err != nil {
		return p, err
	}
	if err := p.addObjects(s, nil, m.Identities, ""); err != nil {
		return p, err
	}
	file := fileListing(configRef(s.objects[authenticatorRef]), m.Cluster)
	if err := p.addList(s, listEdit{listing: file, forget: m.Identities}, ""); err != nil {
		return p, err
	}
	if err := p.add(s, mappingStep{ref: tokenRef, edit: tokenEdit{remove: true}, keep: notOurs, remove: true}); err != nil {
		return p, err
	}
	return p, m.rules(&p, s, true)
}
