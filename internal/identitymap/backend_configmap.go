package identitymap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
)

// fileKey is the key of the authenticator's file in its ConfigMap.
const fileKey = "config.yaml"

// configMapBackend is a ConfigMap with lists of identities.
type configMapBackend struct {
	backend Backend
	ref     ref
	initial map[string]string // data of a new ConfigMap
}

func awsAuthBackend() configMapBackend {
	return configMapBackend{backend: EKSConfigMap, ref: awsAuthRef}
}

// fileBackend is the authenticator's file. A new one has to name the cluster.
func fileBackend(ref ref, clusterID string) configMapBackend {
	return configMapBackend{MountedFile, ref, map[string]string{fileKey: "clusterID: " + clusterID + "\n"}}
}

// listLocation is where a ConfigMap has a list: a key of its data, and a path in that YAML.
type listLocation struct {
	key    string
	path   []string
	arnKey string
}

func (l configMapBackend) location(kind Kind) listLocation {
	if kind == User {
		return l.listLocation("mapUsers", "userARN")
	}
	return l.listLocation("mapRoles", "roleARN")
}

func (l configMapBackend) listLocation(list, arnKey string) listLocation {
	if l.backend == EKSConfigMap {
		return listLocation{key: list, arnKey: strings.ToLower(arnKey)}
	}
	return listLocation{key: fileKey, path: []string{"server", list}, arnKey: arnKey}
}

// name is the location for people.
func (p listLocation) name(ref ref) string { return p.keys() + " of " + ref.String() }

func (p listLocation) keys() string { return strings.Join(append([]string{p.key}, p.path...), ".") }

// listText returns the text of a key. The authenticator takes two backticks, which is not YAML, for an empty list.
func listText(o object, key string) string {
	text := stringAt(o, "data", key)
	if strings.TrimSpace(text) == "``" {
		return ""
	}
	return text
}

func (l configMapBackend) readList(o object, p listLocation) (list *yaml.Node, err error) {
	doc, _, err := readYAML(listText(o, p.key))
	if err == nil {
		list, err = listAt(doc.Content[0], p.path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.name(l.ref), err)
	}
	return list, nil
}

// indexesOf returns the indexes of an ARN's entries.
func indexesOf(entries []entry, arn string) (at []int) {
	for i, e := range entries {
		if strings.EqualFold(e.arn, arn) {
			at = append(at, i)
		}
	}
	return at
}

// decides reports whether the ConfigMap decides about an identity: by an entry, or by mapping its whole account. A list
// that is not one decides nothing.
func (l configMapBackend) decides(o object, id Identity) bool {
	list, err := l.readList(o, l.location(id.Kind))
	if err == nil && len(indexesOf(entriesOf(list), id.canonicalARN())) > 0 {
		return true
	}
	a, _ := arn.Parse(id.ARN) // validated
	return slices.Contains(l.accounts(o), a.AccountID)
}

// accounts returns the accounts of which all identities are mapped. In its file, the authenticator also takes text with
// commas.
func (l configMapBackend) accounts(o object) (ids []string) {
	doc, _, err := readYAML(listText(o, l.listLocation("mapAccounts", "").key))
	if err != nil {
		return nil
	}
	items := doc.Content[0].Content
	if l.backend == MountedFile {
		file, _ := fieldsOf(doc.Content[0])
		server, _ := fieldsOf(file["server"])
		items = itemsOf(server["mapaccounts"])
	}
	for _, n := range items {
		text, _ := scalarOf(n)
		ids = append(ids, strings.Split(text, ",")...)
	}
	return ids
}

// mutate adds and removes identities, and changes nothing else. It deletes a ConfigMap that is ours and otherwise
// empty.
func (l configMapBackend) mutate(now object, add, remove []Identity) (next object, remarks change.Plan, err error) {
	if len(add) == 0 && (now == nil || len(remove) == 0) {
		return now, nil, nil
	}
	if next = now.DeepCopy(); now == nil {
		next = l.ref.empty()
		for key, text := range l.initial {
			set(next, text, "data", key)
		}
	}
	n, err := ownershipOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	n.Created = n.Created || now == nil
	for i, id := range slices.Concat(remove, add) {
		edit := l.removeIdentity
		if i >= len(remove) {
			edit = l.addIdentity
		}
		more, err := edit(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	if len(add) == 0 && n.Created && l.isEmpty(next) {
		return nil, remarks, nil
	}
	return next, remarks, n.write(next)
}

func (l configMapBackend) addIdentity(o object, n *ownership, id Identity) (remarks change.Plan, err error) {
	p, arn := l.location(id.Kind), id.canonicalARN()
	fresh := entryNode(p.arnKey, id)
	text, err := editList(listText(o, p.key), p.path, arn, func(list *yaml.Node, entries []entry) error {
		at := indexesOf(entries, arn)
		if len(at) == 0 {
			list.Content = append(list.Content, fresh)
			n.keep(arn, id.owned())
			return nil
		}
		last := at[len(at)-1]
		t := entries[last].diffAdd(id, n.of(arn))
		n.keep(arn, t.ownedGroups)
		in := p.name(l.ref)
		if len(t.foreign) > 0 {
			remarks = append(remarks, id.leave("somebody else has added %s in %s: it stays", t.foreignGroups(), in))
		}
		if len(at) > 1 {
			remarks = append(remarks, id.leave("it has %d entries in %s: the authenticator uses the last one", len(at), in))
		}
		if t.remove {
			list.Content[last] = fresh
			return nil
		}
		return regroup(list.Content[last], t)
	})
	if err != nil {
		fresh.Style = yaml.FlowStyle
		byHand, _ := yaml.Marshal(fresh) // strings never fail
		return nil, fmt.Errorf("adding %s to %s: nothing was changed: %w: add it by hand: %s",
			arn, p.name(l.ref), err, strings.TrimSpace(string(byHand)))
	}
	set(o, text, "data", p.key)
	return remarks, nil
}

func (l configMapBackend) removeIdentity(o object, n *ownership, id Identity) (remarks change.Plan, err error) {
	p, arn := l.location(id.Kind), id.canonicalARN()
	owned := n.of(arn)
	n.keep(arn, ownedGroups{})
	text := listText(o, p.key)
	if !strings.Contains(strings.ToLower(text), strings.ToLower(arn)) {
		return nil, nil // so it need not be valid
	}
	next, err := editList(text, p.path, arn, func(list *yaml.Node, entries []entry) error {
		for _, i := range slices.Backward(indexesOf(entries, arn)) {
			t := entries[i].diffRemove(id, owned)
			if t.remove {
				list.Content = slices.Delete(list.Content, i, i+1)
				continue
			}
			remarks = append(remarks, id.leave("somebody else has added %s in %s: if nobody needs it, delete it",
				t.foreignGroups(), p.name(l.ref)))
			if err := regroup(list.Content[i], t); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("removing %s from %s: nothing was changed: %w: remove it by hand", arn, p.name(l.ref), err)
	case strings.TrimSpace(next) == "[]":
		unset(o, "data", p.key)
	default:
		set(o, next, "data", p.key)
	}
	return remarks, nil
}

// isEmpty reports whether the data is that of a new ConfigMap.
func (l configMapBackend) isEmpty(o object) bool {
	texts := stringMapAt(o, "data")
	for key, text := range l.initial {
		if texts[key] != text {
			return false
		}
		delete(texts, key)
	}
	for _, text := range texts {
		if strings.TrimSpace(text) != "" {
			return false
		}
	}
	return o.Object["binaryData"] == nil
}
