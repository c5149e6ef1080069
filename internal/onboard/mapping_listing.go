package onboard

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
)

// fileKey is where in its ConfigMap the authenticator's file is.
const fileKey = "config.yaml"

// listing is a ConfigMap with lists of who is who.
type listing struct {
	backend Backend
	ref     ref
	initial map[string]string // its texts where there is none yet
}

func awsAuthListing() listing { return listing{backend: EKSConfigMap, ref: awsAuthRef} }

// fileListing is of the authenticator's file. One that is made anew has to name the cluster.
func fileListing(ref ref, clusterID string) listing {
	return listing{backend: MountedFile, ref: ref, initial: map[string]string{fileKey: "clusterID: " + clusterID + "\n"}}
}

// listPlace is where a ConfigMap lists the identities of a kind: a text of it, and a path in that text.
type listPlace struct {
	key    string
	path   []string
	arnKey string
}

func (l listing) place(kind IdentityKind) listPlace {
	list, arnKey := "mapRoles", "roleARN"
	if kind == UserIdentity {
		list, arnKey = "mapUsers", "userARN"
	}
	if l.backend == EKSConfigMap {
		return listPlace{key: list, arnKey: strings.ToLower(arnKey)}
	}
	return listPlace{key: fileKey, path: []string{"server", list}, arnKey: arnKey}
}

// name is the place as people find it.
func (p listPlace) name(ref ref) string {
	return strings.Join(append([]string{p.key}, p.path...), ".") + " of " + ref.String()
}

// listText is the text of a key; empty if it is what the authenticator takes for nothing though it is no YAML.
func listText(o object, key string) string {
	text := textAt(o, "data", key)
	if strings.TrimSpace(text) == "``" {
		return ""
	}
	return text
}

// open reads the list at a place.
func (l listing) open(o object, p listPlace) (list *yaml.Node, err error) {
	doc, _, err := readYAML(listText(o, p.key))
	if err == nil {
		list, err = listAt(doc.Content[0], p.path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: nothing was changed: %w", p.name(l.ref), err)
	}
	return list, nil
}

// placesOf are the entries of an ARN, by their place in the list.
func placesOf(entries []entry, arn string) (at []int) {
	for i, e := range entries {
		if strings.EqualFold(e.arn, arn) {
			at = append(at, i)
		}
	}
	return at
}

// catches reports whether the listing decides about an identity: by an entry, or by letting in its whole account.
func (l listing) catches(o object, id Identity) (bool, error) {
	list, err := l.open(o, l.place(id.Kind))
	if err != nil || len(placesOf(entriesOf(list), id.canonical())) > 0 {
		return err == nil, err
	}
	accounts := listPlace{key: "mapAccounts"}
	if l.backend == MountedFile {
		accounts = listPlace{key: fileKey, path: []string{"server", "mapAccounts"}}
	}
	list, err = l.open(o, accounts)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Content, func(n *yaml.Node) bool { return n.Value == accountOf(id.ARN) }), nil
}

// give has the ConfigMap list the identities.
func (l listing) give(now object, ids []Identity) (object, change.Plan, error) {
	next := now.DeepCopy()
	created := next == nil
	if created {
		next = l.ref.empty()
		for key, text := range l.initial {
			set(next, text, "data", key)
		}
	}
	n, err := noteOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	n.Created = n.Created || created
	var remarks change.Plan
	for _, id := range ids {
		more, err := l.giveOne(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	return next, remarks, n.write(next)
}

func (l listing) giveOne(o object, n *note, id Identity) (remarks change.Plan, err error) {
	p, arn := l.place(id.Kind), id.canonical()
	fresh := entryNode(p.arnKey, arn, id.Username, id.Groups)
	text, err := editList(listText(o, p.key), p.path, arn, func(list *yaml.Node, entries []entry) error {
		at := placesOf(entries, arn)
		if len(at) == 0 {
			list.Content = append(list.Content, fresh)
			n.keep(arn, grant{Username: id.Username, Groups: id.Groups})
			return nil
		}
		last := at[len(at)-1]
		t := entries[last].give(id, n.of(arn))
		n.keep(arn, t.grant)
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
func (l listing) remarks(id Identity, p listPlace, foreign []string, times int) (said change.Plan) {
	leave := func(format string, args ...any) {
		said = append(said, change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN, Why: fmt.Sprintf(format, args...)})
	}
	if len(foreign) > 0 {
		leave("somebody else has given it %s in %s, and so it stays there", strings.Join(foreign, ", "), p.name(l.ref))
	}
	if times > 1 {
		leave("there are %d entries of it in %s: the authenticator goes by the last one", times, p.name(l.ref))
	}
	return said
}
