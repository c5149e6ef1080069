package identitymap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is what an authenticator's list says about one ARN.
type entry struct {
	arn, username string
	groups        []string
}

// entryNode writes an entry; key is what the list calls the ARN.
func entryNode(key, arn, username string, groups []string) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, g := range groups {
		list.Content = append(list.Content, yamlString(g))
	}
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		yamlString(key), yamlString(arn), yamlString("username"), yamlString(username), yamlString("groups"), list}}
}

// entriesOf reads a list. What is no entry takes its place all the same.
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

// readEntry reads an entry of a list as the authenticator does: whatever the case of its keys.
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

// regroup takes groups from an entry, and gives it others.
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

// ownedGroups is what we have given an ARN in one place, as far as it is noted there.
type ownedGroups struct {
	// Username is not empty if the whole entry is ours. If it is, somebody else had mapped the ARN already, and only these
	// groups are ours.
	Username string   `json:"username,omitempty"`
	Groups   []string `json:"groups"`
}

// A entryDiff is what becomes of an entry: which groups it has to get and lose, whether it has to go, and which groups it has from
// somebody else.
type entryDiff struct {
	add, drop, foreign []string
	remove             bool        // the whole entry
	ownedGroups        ownedGroups // to be noted
}

func (t entryDiff) none() bool { return !t.remove && len(t.add)+len(t.drop) == 0 }

// give decides how an ARN that has an entry gets the groups that are wanted. It has what it had from others: an entry that
// somebody has made, and groups that somebody has added, were put there by people who may do so, and taking rights away
// unasked breaks what they have built. It loses only what we have given it before and do not want any more.
func (e entry) diffAdd(want Identity, noted *ownedGroups) entryDiff {
	var t entryDiff
	mine := noted
	if mine == nil {
		mine = &ownedGroups{}
		if e.username == want.Username && sameSet(e.groups, want.Groups) {
			mine = &ownedGroups{Username: want.Username, Groups: want.Groups} // as we would have made it: only the ownership is lost
		}
	}
	t.add = subtract(want.Groups, e.groups)
	t.drop = subtract(intersect(mine.Groups, e.groups), want.Groups)
	t.foreign = subtract(subtract(e.groups, mine.Groups), want.Groups)
	t.ownedGroups = ownedGroups{Username: mine.Username, Groups: want.Groups}
	if mine.Username == "" {
		// Of the groups that we want, those that somebody else has given are not ours to take away later.
		t.ownedGroups.Groups = union(intersect(mine.Groups, want.Groups), t.add)
	}
	// An entry of ours whose name is another now is made anew, unless somebody else has changed it.
	t.remove = mine.Username != "" && mine.Username != want.Username && e.username == mine.Username && len(t.foreign) == 0
	if t.remove {
		t.ownedGroups.Username = want.Username
	}
	return t
}

// take decides how an ARN loses what we have given it.
func (e entry) diffRemove(want Identity, noted *ownedGroups) entryDiff {
	mine := noted
	if mine == nil { // what we would have made, and nothing more, is ours even if the ownership is lost
		mine = &ownedGroups{Username: want.Username, Groups: want.Groups}
	}
	t := entryDiff{drop: intersect(e.groups, mine.Groups), foreign: subtract(e.groups, mine.Groups)}
	if t.remove = mine.Username != "" && mine.Username == e.username && len(t.foreign) == 0; t.remove {
		t.drop = nil
	}
	if noted == nil && !t.remove {
		t.drop = nil
	}
	return t
}

// without is a without the members of b.
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

func sameSet(a, b []string) bool { return len(subtract(a, b)) == 0 && len(subtract(b, a)) == 0 }

// ownership is what we ownership in an object about what in it is ours, so that a later run can tell it from what others have put
// there, and take away exactly that.
type ownership struct {
	Created bool                   `json:"created,omitempty"` // the object is ours
	Grants  map[string]ownedGroups `json:"grants,omitempty"`  // by ARN
}

func ownershipOf(o object) (ownership, error) {
	n := ownership{Grants: map[string]ownedGroups{}}
	said := stringAt(o, "metadata", "annotations", annotationOwnership)
	if said == "" {
		return n, nil
	}
	if err := json.Unmarshal([]byte(said), &n); err != nil {
		return n, fmt.Errorf("reading the annotation %s, in which kops-spot notes what is its own: remove it if it is not known who has changed it: %w",
			annotationOwnership, err)
	}
	return n, nil
}

// write puts the ownership into an object; where nothing is ours, it goes.
func (n ownership) write(o object) error {
	if len(n.Grants) == 0 {
		unset(o, "metadata", "annotations", annotationOwnership)
		return nil
	}
	said, err := json.Marshal(n)
	if err != nil {
		return err
	}
	set(o, string(said), "metadata", "annotations", annotationOwnership)
	return nil
}

// of is the ownedGroups to an ARN; nil if none is noted.
func (n ownership) of(arn string) *ownedGroups {
	for noted, g := range n.Grants {
		if strings.EqualFold(noted, arn) {
			return &g
		}
	}
	return nil
}

// keep notes a ownedGroups; one that gives nothing is none.
func (n ownership) keep(arn string, g ownedGroups) {
	maps.DeleteFunc(n.Grants, func(noted string, _ ownedGroups) bool { return strings.EqualFold(noted, arn) })
	if g.Username != "" || len(g.Groups) > 0 {
		n.Grants[arn] = g
	}
}

// fingerprint tells whether the grants are still the same; empty for none.
func (n ownership) fingerprint() string {
	if len(n.Grants) == 0 {
		return ""
	}
	said, _ := json.Marshal(n.Grants) // of strings alone: it cannot fail
	sum := sha256.Sum256(said)
	return hex.EncodeToString(sum[:6])
}
