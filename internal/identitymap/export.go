package identitymap

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// export renders the objects that a plan writes, as files for --export. An entry for a list that others also edit goes to
// identity-mapping.yaml.
func (m Mapping) export(p Plan) (map[string][]byte, error) {
	files := map[string][]byte{}
	var failed error
	add := func(name, head string, v any) {
		out := bytes.NewBuffer(append(files[name], head...))
		encoder := yaml.NewEncoder(out)
		encoder.SetIndent(2)
		if err := encoder.Encode(v); err != nil {
			failed = fmt.Errorf("writing %s: %w", name, err)
		}
		files[name] = out.Bytes()
	}
	addNew := func(name string, mutate mutateFunc) {
		o, _, err := mutate(nil)
		if err != nil {
			failed = err
			return
		}
		add(name, "---\n", o.Object)
	}
	for _, o := range m.manifests() {
		add("rbac.yaml", "---\n", o.Object)
	}
	if p.NeedsToken {
		addNew("token.yaml", mutateToken)
	}
	for _, id := range m.Identities {
		const name = "identity-mapping.yaml"
		list := awsAuthBackend()
		switch p.Backends[id.ARN] {
		case CRD:
			addNew(name, crdEdit{ref: crdRef(p.state, id), id: id}.mutate)
			continue
		case EKSConfigMap:
		case MountedFile:
			list = p.state.file(m.Cluster)
		default:
			continue
		}
		at := list.location(id.Kind)
		add(name, "# An entry for "+at.name(list.ref)+"\n",
			[]*yaml.Node{entryNode(at.arnKey, id.canonicalARN(), id.Username, id.Groups)})
	}
	return files, failed
}
