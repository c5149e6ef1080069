package identitymap

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
)

// fileKey is where in its ConfigMap the authenticator's file is.
const fileKey = "config.yaml"

// configMapBackend is a ConfigMap with lists of who is who.
type configMapBackend struct {
	backend Backend
	ref     ref
	initial map[string]string // its texts where there is none yet
}

func awsAuthBackend() configMapBackend {
	return configMapBackend{backend: EKSConfigMap, ref: awsAuthRef}
}

// fileBackend is of the authenticator's file. One that is made anew has to name the cluster.
func fileBackend(ref ref, clusterID string) configMapBackend {
	return configMapBackend{backend: MountedFile, ref: ref, initial: map[string]string{fileKey: "clusterID: " + clusterID + "\n"}}
}

// listLocation is where a ConfigMap lists the identities of a kind: a text of it, and a path in that text.
type listLocation struct {
	key    string
	path   []string
	arnKey string
}

func (l configMapBackend) location(kind Kind) listLocation {
	list, arnKey := "mapRoles", "roleARN"
	if kind == User {
		list, arnKey = "mapUsers", "userARN"
	}
	if l.backend == EKSConfigMap {
		return listLocation{key: list, arnKey: strings.ToLower(arnKey)}
	}
	return listLocation{key: fileKey, path: []string{"server", list}, arnKey: arnKey}
}

// name is the place as people find it.
func (p listLocation) name(ref ref) string {
	return strings.Join(append([]string{p.key}, p.path...), ".") + " of " + ref.String()
}

// listText is the text of a key; empty if it is what the authenticator takes for nothing though it is no YAML.
func listText(o object, key string) string {
	text := stringAt(o, "data", key)
	if strings.TrimSpace(text) == "``" {
		return ""
	}
	return text
}

// open reads the list at a place.
func (l configMapBackend) readList(o object, p listLocation) (list *yaml.Node, err error) {
	doc, _, err := readYAML(listText(o, p.key))
	if err == nil {
		list, err = listAt(doc.Content[0], p.path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: nothing was changed: %w", p.name(l.ref), err)
	}
	return list, nil
}

// indexesOf are the entries of an ARN, by their place in the list.
func indexesOf(entries []entry, arn string) (at []int) {
	for i, e := range entries {
		if strings.EqualFold(e.arn, arn) {
			at = append(at, i)
		}
	}
	return at
}

// decides reports whether the configMapBackend decides about an identity: by an entry, or by letting in its whole account.
func (l configMapBackend) decides(o object, id Identity) (bool, error) {
	list, err := l.readList(o, l.location(id.Kind))
	if err != nil || len(indexesOf(entriesOf(list), id.canonicalARN())) > 0 {
		return err == nil, err
	}
	accounts := listLocation{key: "mapAccounts"}
	if l.backend == MountedFile {
		accounts = listLocation{key: fileKey, path: []string{"server", "mapAccounts"}}
	}
	list, err = l.readList(o, accounts)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Content, func(n *yaml.Node) bool { return n.Value == accountOf(id.ARN) }), nil
}

// give has the ConfigMap list the identities.
func (l configMapBackend) add(now object, ids []Identity) (object, change.Plan, error) {
	next := now.DeepCopy()
	created := next == nil
	if created {
		next = l.ref.empty()
		for key, text := range l.initial {
			set(next, text, "data", key)
		}
	}
	n, err := ownershipOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	n.Created = n.Created || created
	var remarks change.Plan
	for _, id := range ids {
		more, err := l.addIdentity(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	return next, remarks, n.write(next)
}

func (l configMapBackend) addIdentity(o object, n *ownership, id Identity) (remarks change.Plan, err error) {
	p, arn := l.location(id.Kind), id.canonicalARN()
	fresh := entryNode(p.arnKey, arn, id.Username, id.Groups)
	text, err := editList(listText(o, p.key), p.path, arn, func(list *yaml.Node, entries []entry) error {
		at := indexesOf(entries, arn)
		if len(at) == 0 {
			list.Content = append(list.Content, fresh)
			n.keep(arn, ownedGroups{Username: id.Username, Groups: id.Groups})
			return nil
		}
		last := at[len(at)-1]
		t := entries[last].diffAdd(id, n.of(arn))
		n.keep(arn, t.ownedGroups)
		remarks = l.remarks(id, p, t.foreign, len(at))
		if t.remove {
			list.Content[last] = fresh
			return nil
		}
		return regroup(list.Content[last], t)
	})
	if err != nil {
		fresh.Style = yaml.FlowStyle
		byHand, _ := yaml.Marshal(fresh) // of strings alone: it cannot fail
		return nil, fmt.Errorf("adding %s to %s: nothing was changed: %w: put in by hand: %s",
			arn, p.name(l.ref), err, strings.TrimSpace(string(byHand)))
	}
	set(o, text, "data", p.key)
	return remarks, nil
}

// remarks tell of what in an entry is others'.
func (l configMapBackend) remarks(id Identity, p listLocation, foreign []string, times int) (said change.Plan) {
	leave := func(format string, args ...any) {
		said = append(said, change.Change{Verb: change.Leave, Kind: id.kindName(), Name: id.ARN, Why: fmt.Sprintf(format, args...)})
	}
	if len(foreign) > 0 {
		leave("somebody else has given it %s in %s, and so it stays there", strings.Join(foreign, ", "), p.name(l.ref))
	}
	if times > 1 {
		leave("there are %d entries of it in %s: the authenticator goes by the last one", times, p.name(l.ref))
	}
	return said
}

// take has the ConfigMap list the identities no more, and leaves all else in it as it is; nil if it is to go, which it is
// only if it is ours and there is nothing of others in it.
func (l configMapBackend) remove(now object, ids []Identity) (object, change.Plan, error) {
	if now == nil || len(ids) == 0 {
		return now, nil, nil
	}
	next := now.DeepCopy()
	n, err := ownershipOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	var remarks change.Plan
	for _, id := range ids {
		more, err := l.removeIdentity(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	if n.Created && l.isEmpty(next) {
		return nil, remarks, nil
	}
	return next, remarks, n.write(next)
}

// bare reports whether the texts are those of a ConfigMap that has just been made.
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

func (l configMapBackend) removeIdentity(o object, n *ownership, id Identity) (remarks change.Plan, err error) {
	p, arn := l.location(id.Kind), id.canonicalARN()
	noted := n.of(arn)
	n.keep(arn, ownedGroups{})
	text := listText(o, p.key)
	if !strings.Contains(strings.ToLower(text), strings.ToLower(arn)) {
		return nil, nil // a text without it need not be understood
	}
	next, err := editList(text, p.path, arn, func(list *yaml.Node, entries []entry) error {
		for _, i := range slices.Backward(indexesOf(entries, arn)) {
			t := entries[i].diffRemove(id, noted)
			if t.remove {
				list.Content = slices.Delete(list.Content, i, i+1)
				continue
			}
			remarks = append(remarks, change.Change{Verb: change.Leave, Kind: id.kindName(), Name: id.ARN,
				Why: fmt.Sprintf("somebody else has given it %s in %s: remove the entry there if nobody needs it",
					strings.Join(groupsOrName(t.foreign), ", "), p.name(l.ref))})
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

func groupsOrName(groups []string) []string {
	if len(groups) == 0 {
		return []string{"a name"}
	}
	return groups
}
