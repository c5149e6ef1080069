package identitymap

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

const ours = "arn:aws:iam::111122223333:role/Ours"

var (
	root   []string
	server = []string{"server", "mapRoles"}
)

// put adds our role to the list in a text.
func put(text string, path []string) (string, error) {
	return editList(text, path, ours, func(list *yaml.Node, entries []entry) error {
		if at := indexesOf(entries, ours); len(at) > 0 {
			last := at[len(at)-1]
			return regroup(list.Content[last], entryDiff{add: subtract([]string{"g"}, entries[last].groups)})
		}
		list.Content = append(list.Content, entryNode("rolearn", Identity{Kind: Role, ARN: ours, Username: "u", Groups: []string{"g"}}))
		return nil
	})
}

// cut removes our role from the list in a text.
func cut(text string, path []string) (string, error) {
	return editList(text, path, ours, func(list *yaml.Node, entries []entry) error {
		for _, i := range slices.Backward(indexesOf(entries, ours)) {
			list.Content = slices.Delete(list.Content, i, i+1)
		}
		return nil
	})
}

// thereAndBack adds our role to a text and removes it again. The authenticator must always read the same about others,
// and adding the role twice must change nothing.
func thereAndBack(t *testing.T, text string, path []string) (with, left string, err error) {
	t.Helper()
	if with, err = put(text, path); err != nil {
		return "", "", err
	}
	if again, err := put(with, path); err != nil || again != with {
		t.Errorf("adding the role again: %v: got\n%s\nwant\n%s", err, again, with)
	}
	if left, err = cut(with, path); err != nil {
		t.Fatalf("removing the role: %v:\n%s", err, with)
	}
	if !strings.Contains(with, ours) || strings.Contains(left, ours) {
		t.Errorf("with the role:\n%s\nwithout it:\n%s", with, left)
	}
	was, err := reads(text, ours)
	if err != nil {
		return with, left, nil // the authenticator cannot read the original either
	}
	for _, is := range []string{with, left} {
		if now, err := reads(is, ours); err != nil || now != was {
			t.Errorf("about others: %v: got\n%s\nwant\n%s", err, now, was)
		}
	}
	return with, left, nil
}

// reads returns what the authenticator reads in a text, without empty values and without the entries of a role.
func reads(text, without string) (string, error) {
	var v any
	if err := utilyaml.Unmarshal([]byte(text), &v); err != nil {
		return "", err
	}
	said, err := json.Marshal(prune(v, without))
	return string(said), err
}

func prune(v any, without string) any {
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			if v[key] = prune(below, without); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) > 0 && v["rolearn"] != without {
			return v
		}
	case []any:
		var kept []any
		for _, item := range v {
			if item = prune(item, without); item != nil {
				kept = append(kept, item)
			}
		}
		if len(kept) > 0 {
			return kept
		}
	default:
		if v != "" {
			return v
		}
	}
	return nil
}

const (
	oursInLines = "- rolearn: " + ours + "\n  username: u\n  groups:\n    - g\n"
	oursInFile  = "    - rolearn: " + ours + "\n      username: u\n      groups:\n        - g\n"

	kopsRoles = `# Nodes: do not remove
- rolearn: arn:aws:iam::111122223333:role/nodes.prod.example.com  # all groups
  username: system:node:{{EC2PrivateDNSName}}

  groups: [system:nodes]
# the people on call
- rolearn: arn:aws:iam::111122223333:role/on-call
  username: 'off'
  groups:
  - "system:masters"
  - view   # everything
  # more to come
# the end
`
	kopsFile = `# keep this in git
clusterID: c
server:
  # who
  mapRoles:
  # the admin
  - roleARN: a   # A
    username: "a"
    groups:
    - system:masters

  # and
  mapUsers: []
  port: 21362
`
	kopsRewritten = `# Nodes: do not remove
- rolearn: arn:aws:iam::111122223333:role/nodes.prod.example.com # all groups
  username: system:node:{{EC2PrivateDNSName}}
  groups: ['system:nodes']
# the people on call
- rolearn: arn:aws:iam::111122223333:role/on-call
  username: 'off'
  groups:
    - "system:masters"
    - view # everything
    # more to come
`
	fileRewritten = `# keep this in git
clusterID: c
server:
  # who
  mapRoles:
    # the admin
    - roleARN: a # A
      username: "a"
      groups:
        - system:masters
  # and
  mapUsers: []
  port: 21362
`
)

// TestEditedText compares a handwritten text byte for byte, to detect a change of the library: with our role, and after
// removing it. Order, comments and words stay the same; blank lines, quotes and indentation may not.
func TestEditedText(t *testing.T) {
	for name, c := range map[string]struct {
		path             []string
		text, with, left string
	}{
		"nothing":               {root, "", oursInLines, "[]\n"},
		"nothing but a comment": {root, "# nobody\n", "# nobody\n\n" + oursInLines, "# nobody\n\n[]\n"},
		"JSON": {root, `[{"rolearn":"a]}","groups":["x"]} ]`,
			`[{"rolearn": "a]}", "groups": ["x"]}, {rolearn: '` + ours + `', username: u, groups: [g]}]` + "\n",
			`[{"rolearn": "a]}", "groups": ["x"]}]` + "\n"},
		"aws-auth": {root, kopsRoles, kopsRewritten + oursInLines + "\n# the end\n", kopsRewritten + "\n# the end\n"},
		"a file":   {server, kopsFile, strings.Replace(fileRewritten, "  # and\n", oursInFile+"  # and\n", 1), fileRewritten},
		"our role among others": {root, "# top\n\n- rolearn: a # A\n\n" + oursInLines + "# of b\n- rolearn:   b\n",
			"# top\n\n- rolearn: a # A\n\n" + oursInLines + "# of b\n- rolearn:   b\n",
			"# top\n\n- rolearn: a # A\n# of b\n- rolearn: b\n"},
		"a list without an entry": {server, "server:\n  mapRoles: # none yet\n  # really\n  mapUsers:\n    - userARN: u\n",
			"server:\n  mapRoles: # none yet\n" + oursInFile + "  # really\n  mapUsers:\n    - userARN: u\n",
			"server:\n  mapRoles: # none yet\n  # really\n  mapUsers:\n    - userARN: u\n"},
	} {
		with, left, err := thereAndBack(t, c.text, c.path)
		if err != nil || with != c.with || left != c.left {
			t.Errorf("%s: %v; with the role: got\n%s\nwant\n%s\nafterwards: got\n%s\nwant\n%s",
				name, err, with, c.with, left, c.left)
		}
	}
}

// TestEditKeepsOthers: however a text is written, the entries of others stay.
func TestEditKeepsOthers(t *testing.T) {
	for name, c := range map[string]struct {
		path []string
		text string
	}{
		"white space":            {root, " \n"},
		"an empty list":          {root, "[] # none\n"},
		"only a document marker": {root, "---\n"},
		"null":                   {root, "~ # nobody\n"},
		"quotes":                 {root, "''\n"},
		"no newline at the end":  {root, "- rolearn: a\n  username: a"},
		"CRLF line endings":      {root, "- rolearn: a\r\n  username: a\r\n"},
		"an indented list after a document marker": {root,
			"---\n  -\n    rolearn: a\n    username: |\n      # no comment\n      a\n"},
		"text that looks like a comment": {root, "- username: |\n    a\n\n    # b\n"},
		"a document end marker":          {root, "- a\n...\n"},
		"brackets on several lines, with a comma and comments": {root,
			"[\n  {rolearn: ä, username: b}, # b, of ] team\n]\n"},
		"words with another meaning in YAML 1.1": {root,
			"- {rolearn: a, username: 'yes', groups: [\"on\", '012', off, 012]}\n"},
		"an anchor":                  {root, "&x [a]\n"},
		"an alias that stays":        {root, "- {rolearn: a, groups: &g [y]}\n- {rolearn: b, groups: *g}\n"},
		"our role already":           {root, oursInLines + "- rolearn: a\n"},
		"our role with other groups": {root, "- rolearn: a\n- rolearn: " + ours + "\n  groups: [x] # by hand\n"},
		"our role among others in brackets": {root,
			"[{rolearn: 'a,'}, {rolearn: '" + ours + "', groups: [g]}, # b\n {rolearn: b}, ]"},
		"our role twice":                         {root, oursInLines + "- rolearn: a\n" + oursInLines},
		"a file in brackets":                     {server, "{clusterID: c, server: {port: 1}}\n"},
		"a file without lists":                   {server, "clusterID: c # C\n\nserver:\n    port: 1\n"},
		"a file whose list is null":              {server, "server:\n  MapRoles: ~\nclusterID: c\n"},
		"a file whose list is null, in brackets": {server, "{server: {mapRoles: null}}"},
		"a file whose list is not the last": {server,
			"clusterID: server\nserver:\n  x: mapRoles\n  mapRoles:\n  - roleARN: a\n  y: 1\n"},
		"a file without the section": {server, "clusterID: c\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := thereAndBack(t, c.text, c.path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEditRefusesUnclearText with an error that names the problem.
func TestEditRefusesUnclearText(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		path []string
		want string
	}{
		"no YAML":     {"- rolearn: a\n  username: \"b\n", root, "line 2"},
		"a tab":       {"- rolearn: a\n\tusername: b\n", root, "line 2"},
		"a key twice": {"- rolearn: a\n  rolearn: b\n", root, "line 2"},
		"a key twice, in different case": {"server:\n  mapRoles: []\n  maproles: []\n", server,
			"line 3: duplicate key mapRoles"},
		"no list":                {"rolearn: a\n", root, "line 1: it should be a list"},
		"a word":                 {"none\n", root, "line 1: it should be a list"},
		"a word in the path":     {"server: off\n", server, "line 1: it should be a mapping with the key mapRoles"},
		"two documents":          {"- a\n---\n- b\n", root, "more than one document"},
		"an alias":               {"x: &x [a]\nserver: {mapRoles: *x}\n", server, "change it for others"},
		"an alias in the path":   {"x: &x {mapRoles: [a]}\nserver: *x\n", server, "change it for others"},
		"a word with an odd tag": {"- {rolearn: a, username: ! off}\n", root, "change it for others"},
		"a merge key":            {"x: &x {mapRoles: [a]}\nserver: {<<: *x}\n", server, "change it for others"},
		"an alias of itself":     {"&x [*x]\n", root, "contains itself"},
		"groups shared by an alias": {"- {rolearn: b, groups: &g [y]}\n- {rolearn: '" + ours + "', groups: *g}\n", root,
			"change it for others"},
	} {
		if got, err := put(c.text, c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q:\n%s", name, err, c.want, got)
		}
	}
	const anchor = "- &e {rolearn: " + ours + ", groups: [a]}\n- {<<: *e, rolearn: b}\n"
	got, err := cut(anchor, root)
	if err == nil || !strings.Contains(err.Error(), "the edited text does not parse") {
		t.Errorf("without an anchor: %v:\n%s", err, got)
	}
}

// FuzzEdit: an edit has only the intended effect or fails, and removing the role restores the text.
func FuzzEdit(f *testing.F) {
	for _, text := range []string{"", "- a\n", "[a, b]", "server:\n  mapRoles:\n  - roleARN: x\n", "- {a: b}\n# c",
		"a: |\n  - b\n", "-\n - x\n", "? a\n: b", "\ufeff- a", "- a\r\n- b\r\n", kopsRoles, kopsFile} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, deep bool) {
		path := root
		if deep {
			path = server
		}
		if strings.Contains(text, ours) || !utf8.ValidString(text) { // not possible in a ConfigMap
			return
		}
		_, _, _ = thereAndBack(t, text, path)
	})
}
