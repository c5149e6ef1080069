package identitymap

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is what the authenticator reads about one ARN.
type entry struct {
	arn, username string
	groups        []string
}

// entryNode is the YAML of an identity's entry; key is the list's key of the ARN.
func entryNode(key string, id Identity) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, g := range id.Groups {
		list.Content = append(list.Content, yamlString(g))
	}
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{yamlString(key), yamlString(id.canonicalARN()),
		yamlString("username"), yamlString(id.Username), yamlString("groups"), list}}
}

// entriesOf reads a list. An item that is not an entry is a zero entry.
func entriesOf(list *yaml.Node) []entry {
	entries := make([]entry, len(list.Content))
	for i, n := range list.Content {
		var v any
		if n.Decode(&v) == nil {
			entries[i] = readEntry(v)
		}
	}
	return entries
}

// readEntry reads an entry. Like the authenticator, it ignores the case of keys.
func readEntry(v any) (e entry) {
	fields, _ := v.(map[string]any)
	for key, value := range fields {
		switch strings.ToLower(key) {
		case "rolearn", "userarn":
			e.arn, _ = value.(string)
		case "username":
			e.username = fmt.Sprint(value)
		case "groups":
			list, _ := value.([]any)
			for _, g := range list {
				e.groups = append(e.groups, fmt.Sprint(g))
			}
		}
	}
	return e
}

// regroup removes groups from an entry and adds others.
func regroup(n *yaml.Node, t entryDiff) error {
	if len(t.add)+len(t.drop) == 0 {
		return nil
	}
	groups, err := listAt(n, []string{"groups"})
	if err != nil {
		return err
	}
	groups.Content = slices.DeleteFunc(groups.Content, func(g *yaml.Node) bool { return slices.Contains(t.drop, g.Value) })
	for _, g := range t.add {
		groups.Content = append(groups.Content, yamlString(g))
	}
	dropEmpty(n, []string{"groups"})
	return nil
}

// ownedGroups is the part of an entry that is ours.
type ownedGroups struct {
	// Username is set if the whole entry is ours. Otherwise somebody else has created it, and only the groups are ours.
	Username string   `json:"username,omitempty"`
	Groups   []string `json:"groups"`
}

// owned is the ownership of an entry that we have created.
func (id Identity) owned() ownedGroups { return ownedGroups{Username: id.Username, Groups: id.Groups} }

// An entryDiff is how to change an entry.
type entryDiff struct {
	add, drop   []string    // groups
	foreign     []string    // groups that somebody else has added
	remove      bool        // the whole entry
	ownedGroups ownedGroups // afterwards
}

func (t entryDiff) foreignGroups() string { return cmp.Or(strings.Join(t.foreign, ", "), "a username") }

// diffAdd gives an existing entry the wanted groups. Entries and groups of other people stay: removing permissions
// unasked breaks what they have built. Only groups that we have added before and no longer want are removed.
func (e entry) diffAdd(want Identity, owned *ownedGroups) (t entryDiff) {
	var mine ownedGroups
	t.add = subtract(want.Groups, e.groups)
	other := subtract(e.groups, want.Groups)
	if owned != nil {
		mine = *owned
	} else if e.username == want.Username && len(t.add)+len(other) == 0 {
		mine = want.owned() // as we create it: only the annotation is lost
	}
	t.drop, t.foreign = intersect(mine.Groups, other), subtract(other, mine.Groups)
	t.ownedGroups = ownedGroups{Username: mine.Username, Groups: want.Groups}
	if mine.Username == "" {
		// Wanted groups that somebody else has added are not ours to remove later.
		t.ownedGroups.Groups = union(intersect(mine.Groups, want.Groups), t.add)
	}
	// Our entry is replaced if its username changes, unless somebody else has changed it.
	t.remove = mine.Username != "" && mine.Username != want.Username && e.username == mine.Username && len(t.foreign) == 0
	if t.remove {
		t.ownedGroups.Username = want.Username
	}
	return t
}

// diffRemove removes what we have added to an entry. Without an annotation, only an entry exactly as we create it is
// ours.
func (e entry) diffRemove(want Identity, owned *ownedGroups) (t entryDiff) {
	mine := want.owned()
	if owned != nil {
		mine = *owned
	}
	t.foreign = subtract(e.groups, mine.Groups)
	t.remove = mine.Username != "" && mine.Username == e.username && len(t.foreign) == 0
	if owned != nil && !t.remove {
		t.drop = intersect(e.groups, mine.Groups)
	}
	return t
}

// subtract returns a without the members of b.
func subtract(a, b []string) (rest []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

func intersect(a, b []string) []string { return subtract(a, subtract(a, b)) }

func union(a, b []string) []string { return append(slices.Clone(a), subtract(b, a)...) }

// ownership is an annotation that says what in an object is ours, so that later runs remove only that.
type ownership struct {
	Created bool                   `json:"created,omitempty"` // the object is ours
	Grants  map[string]ownedGroups `json:"grants,omitempty"`  // by ARN
}

func ownershipOf(o object) (ownership, error) {
	n := ownership{Grants: map[string]ownedGroups{}}
	text := stringAt(o, "metadata", "annotations", annotationOwnership)
	if text == "" {
		return n, nil
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return n, fmt.Errorf("reading annotation %s: remove it if nobody knows who changed it: %w", annotationOwnership, err)
	}
	return n, nil
}

// write sets the annotation, or removes it if nothing is ours.
func (n ownership) write(o object) error {
	if len(n.Grants) == 0 {
		unset(o, "metadata", "annotations", annotationOwnership)
		return nil
	}
	text, err := json.Marshal(n)
	set(o, string(text), "metadata", "annotations", annotationOwnership)
	return err
}

// of returns what of an ARN's entry is ours; nil for nothing.
func (n ownership) of(arn string) *ownedGroups {
	for owned, g := range n.Grants {
		if strings.EqualFold(owned, arn) {
			return &g
		}
	}
	return nil
}

// keep records what of an ARN's entry is ours.
func (n ownership) keep(arn string, g ownedGroups) {
	maps.DeleteFunc(n.Grants, func(owned string, _ ownedGroups) bool { return strings.EqualFold(owned, arn) })
	if g.Username != "" || len(g.Groups) > 0 {
		n.Grants[arn] = g
	}
}

// fingerprint identifies the grants; empty for none.
func (n ownership) fingerprint() string {
	if len(n.Grants) == 0 {
		return ""
	}
	text, _ := json.Marshal(n.Grants) // strings never fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}
