package onboard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/iam"
)

// Files are documents and manifests by the names of their files. None of them holds a secret.
type Files map[string][]byte

// documents are what onboarding writes into the account: the policies, and the tags by which they tell clusters apart.
func (w Want) documents(s State, token *logIn) (Files, error) {
	if token != nil && s.LogInSecret == nil {
		s.LogInSecret = w.secretToMake()
	}
	files := Files{}
	all := []iam.Document{iam.Boundary, iam.ManagedPolicy, iam.RestrictedPolicy, iam.Trust, iam.HandlerPolicy, iam.RuntimePolicy}
	if len(w.Subnets) > 0 {
		all = append(all, iam.NetworkPolicy)
	}
	for _, d := range all {
		text, err := w.document(d, s)
		if err != nil {
			return nil, err
		}
		files[cmp.Or(d.Name, "trust")+".json"] = []byte(text)
	}
	userTags, err := iam.UserTags(w.Ground.Values)
	if err != nil {
		return nil, err
	}
	var tags []map[string]string // as the options of the AWS CLI take them
	for _, key := range slices.Sorted(maps.Keys(userTags)) {
		tags = append(tags, map[string]string{"Key": key, "Value": userTags[key]})
	}
	text, err := json.MarshalIndent(tags, "", "  ")
	files["user-tags.json"] = append(text, '\n')
	return files, err
}

// manifests are what onboarding writes into the cluster. Lists that others have entries in too are left out, and our entry
// is in identity-mapping.yaml.
func (m Mapping) manifests(s MappingState, p MappingPlan) (Files, error) {
	rules, err := manifestObjects()
	if err != nil {
		return nil, err
	}
	files := Files{}
	for _, ref := range sortedRefs(rules) {
		if isKarpenters(ref) && !m.Karpenter {
			continue
		}
		if err := files.add("rbac.yaml", "---\n", overlay{manifest: rules[ref]}); err != nil {
			return nil, err
		}
	}
	if p.NeedsToken {
		if err := files.add("token.yaml", "", tokenEdit{}); err != nil {
			return nil, err
		}
	}
	known, _ := m.known()
	for _, id := range known {
		const name = "identity-mapping.yaml"
		var list listing
		switch p.Backends[id.ARN] {
		case CRD:
			if err := files.add(name, "---\n", objectEdit{ref: mappingRef(s, id), id: id}); err != nil {
				return nil, err
			}
			continue
		case EKSConfigMap:
			list = awsAuthListing()
		case MountedFile:
			list = fileListing(configRef(s.objects[authenticatorRef]), m.Cluster)
		default:
			continue
		}
		place := list.place(id.Kind)
		head := "# An entry for " + place.name(list.ref) + "\n"
		if err := files.yaml(name, head, []*yaml.Node{entryNode(place.arnKey, id.canonical(), id.Username, id.Groups)}); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// add adds the object that an edit makes where there is none.
func (f Files) add(name, head string, e edit) error {
	o, _, err := e.on(nil)
	if err != nil {
		return err
	}
	return f.yaml(name, head, map[string]any(o))
}

// yaml adds a document to a file.
func (f Files) yaml(name, head string, v any) error {
	out := bytes.NewBuffer(append(f[name], head...))
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	f[name] = out.Bytes()
	return nil
}
