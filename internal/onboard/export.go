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
		files[fileOf(d)] = []byte(text)
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

func fileOf(d iam.Document) string { return cmp.Or(d.Name, "trust") + ".json" }

// text is one of the policy documents.
func (f Files) text(d iam.Document) string { return string(f[fileOf(d)]) }

// files are what onboarding writes into the cluster. Lists that others have entries in too are left out, and our entry is in
// identity-mapping.yaml.
func (m Mapping) files(p MappingPlan) (Files, error) {
	files := Files{}
	var err error
	add := func(name, head string, v any) { err = cmp.Or(err, files.yaml(name, head, v)) }
	for _, o := range m.manifests() {
		add("rbac.yaml", "---\n", o.Object)
	}
	made := func(name string, e edit) {
		o, _, failed := e(nil)
		if err = cmp.Or(err, failed); err == nil {
			add(name, "---\n", o.Object)
		}
	}
	if p.NeedsToken {
		made("token.yaml", tokenEdit)
	}
	for _, id := range m.Identities {
		const name = "identity-mapping.yaml"
		list := awsAuthListing()
		switch p.Backends[id.ARN] {
		case CRD:
			made(name, objectEdit{ref: mappingRef(p.state, id), id: id}.on)
			continue
		case EKSConfigMap:
		case MountedFile:
			list = p.state.file(m.Cluster)
		default:
			continue
		}
		place := list.place(id.Kind)
		add(name, "# An entry for "+place.name(list.ref)+"\n",
			[]*yaml.Node{entryNode(place.arnKey, id.canonical(), id.Username, id.Groups)})
	}
	return files, err
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
