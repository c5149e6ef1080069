package onboard

import (
	"errors"
	"strings"
	"testing"
)

const ours = "arn:aws:iam::111122223333:role/Ours"

// TestAnItemIsPutInAndCutOutAgain: whatever way the text is written, it has all its bytes afterwards.
func TestAnItemIsPutInAndCutOutAgain(t *testing.T) {
	root, server := yamlPath{}, yamlPath{"server", "mapRoles"}
	for name, c := range map[string]struct {
		path yamlPath
		text string
		want string // the text with the item
		left string // without it again, where that is not the text
	}{
		"nothing":        {path: root, text: "", want: "- rolearn: X\n  username: u\n  groups:\n    - g\n"},
		"white space":    {path: root, text: " \n", want: " \n- rolearn: X\n  username: u\n  groups:\n    - g\n"},
		"comments alone": {path: root, text: "# nobody\n", want: "# nobody\n- rolearn: X\n  username: u\n  groups:\n    - g\n"},
		"an entry, with comments and blank lines around it": {path: root,
			text: "# ours\n\n- rolearn: a  # Anna\n  username: 'a'\n\n  groups: [x, y]\n  # more to come\n\n# the end\n",
			want: "# ours\n\n- rolearn: a  # Anna\n  username: 'a'\n\n  groups: [x, y]\n  # more to come\n- rolearn: X\n  username: u\n  groups:\n    - g\n\n# the end\n"},
		"no newline at the end": {path: root, text: "- rolearn: a\n  username: a", want: "- rolearn: a\n  username: a\n- rolearn: X\n  username: u\n  groups:\n    - g"},
		"a list that is further in, after the mark of a document": {path: root,
			text: "---\n  -\n    rolearn: a\n    username: |\n      # no comment\n      a\n",
			want: "---\n  -\n    rolearn: a\n    username: |\n      # no comment\n      a\n  - rolearn: X\n    username: u\n    groups:\n      - g\n"},
		"an empty list": {path: root, text: "[] # none\n", want: "[{rolearn: \"X\", username: \"u\", groups: [\"g\"]}] # none\n"},
		"JSON":          {path: root, text: `[{"rolearn":"a]}","groups":["x"]} ]`, want: `[{"rolearn":"a]}","groups":["x"]}, {rolearn: "X", username: "u", groups: ["g"]} ]`},
		"brackets on several lines, with a comma and comments": {path: root,
			text: "[\n  {rolearn: ä, username: b}, # b, of ] team\n]\n",
			want: "[\n  {rolearn: ä, username: b}, # b, of ] team\n{rolearn: \"X\", username: \"u\", groups: [\"g\"]}]\n",
			left: "[\n  {rolearn: ä, username: b}]\n"},
		"a file": {path: server,
			text: "clusterID: c\nserver:\n  # who\n  mapRoles:\n  # the admin\n  - roleARN: a\n    username: a\n    groups:\n    - system:masters\n  # and\n  mapUsers: []\n  port: 21362\n",
			want: "clusterID: c\nserver:\n  # who\n  mapRoles:\n  # the admin\n  - roleARN: a\n    username: a\n    groups:\n    - system:masters\n  - rolearn: X\n    username: u\n    groups:\n      - g\n  # and\n  mapUsers: []\n  port: 21362\n"},
		"a file whose list is empty": {path: server,
			text: "server:\n  mapRoles: # none yet\n  # really\n  mapUsers:\n    - userARN: u\n",
			want: "server:\n  mapRoles: # none yet\n    - rolearn: X\n      username: u\n      groups:\n        - g\n  # really\n  mapUsers:\n    - userARN: u\n"},
		"a file whose list is null": {path: server, text: "server:\n  MapRoles: ~\nclusterID: c\n",
			want: "server:\n  MapRoles:\n    - rolearn: X\n      username: u\n      groups:\n        - g\nclusterID: c\n", left: "server:\n  MapRoles:\nclusterID: c\n"},
		"a file without the list": {path: server, text: "server:\n  port: 1\n\nclusterID: c\n",
			want: "server:\n  port: 1\n  mapRoles:\n    - rolearn: X\n      username: u\n      groups:\n        - g\n\nclusterID: c\n", left: "server:\n  port: 1\n  mapRoles:\n\nclusterID: c\n"},
		"a file without all of it": {path: server, text: "clusterID: c\n",
			want: "clusterID: c\nserver:\n  mapRoles:\n    - rolearn: X\n      username: u\n      groups:\n        - g\n", left: "clusterID: c\nserver:\n  mapRoles:\n"},
		"a file in brackets": {path: server, text: "{clusterID: c, server: {port: 1}}\n",
			want: "{clusterID: c, server: {port: 1, mapRoles: [{rolearn: \"X\", username: \"u\", groups: [\"g\"]}]}}\n",
			left: "{clusterID: c, server: {port: 1, mapRoles: []}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			y, err := readYAML(c.text)
			if err != nil {
				t.Fatal(err)
			}
			with, err := y.add(c.path, entryNode("rolearn", "X", "u", []string{"g"}))
			if err != nil || with != c.want {
				t.Fatalf("%v; with it:\n%s\nwant:\n%s", err, with, c.want)
			}
			y, err = readYAML(with)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := y.list(c.path)
			if err != nil || len(entries) == 0 {
				t.Fatalf("%d entries, %v", len(entries), err)
			}
			without, err := y.cut(c.path, len(entries)-1)
			if want := c.text; err != nil || without != want && without != c.left {
				t.Errorf("%v; without it:\n%s\nwant:\n%s%s", err, without, want, c.left)
			}
		})
	}
}

// TestAnItemIsCutOutOfTheMiddle, or from the beginning, and those beside it keep what they have.
func TestAnItemIsCutOutOfTheMiddle(t *testing.T) {
	for name, c := range map[string]struct{ text, first, second, third string }{
		"lines":    {"# top\n- a # A\n\n# of b\n- b\n- c\n# end", "# top\n\n# of b\n- b\n- c\n# end", "# top\n- a # A\n\n# of b\n- c\n# end", "# top\n- a # A\n\n# of b\n- b\n# end"},
		"brackets": {"[ a, \"b,\",\n c ]", "[ \"b,\",\n c ]", "[ a, c ]", "[ a, \"b,\" ]"},
		"comments": {"[a, # foo\n b, # bar\n c]", "[b, # bar\n c]", "[a, # foo\n c]", "[a, # foo\n b, # bar\n ]"},
	} {
		y, err := readYAML(c.text)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{c.first, c.second, c.third} {
			if got, err := y.cut(nil, i); err != nil || got != want {
				t.Errorf("%s: without item %d: %v\n%s\nwant:\n%s", name, i, err, got, want)
			}
		}
	}
}

// TestWhatIsNotUnderstoodStaysAsItIs: the error says where the trouble is, or to edit by hand.
func TestWhatIsNotUnderstoodStaysAsItIs(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		path yamlPath
		want string
	}{
		"no YAML":                        {"- rolearn: a\n  username: \"b\n", nil, "line 2"},
		"a tab":                          {"- rolearn: a\n\tusername: b\n", nil, "line 2"},
		"a key twice":                    {"- rolearn: a\n  rolearn: b\n", nil, "line 2"},
		"no list":                        {"rolearn: a\n", nil, "line 1: there is no list"},
		"a word":                         {"none\n", nil, "line 1: there is no list"},
		"a word on the way":              {"server: off\n", yamlPath{"server", "mapRoles"}, "line 1: there is no mapRoles"},
		"two documents":                  {"- a\n---\n- b\n", nil, "more than one document"},
		"an alias":                       {"x: &x [a]\nserver: {mapRoles: *x}\n", yamlPath{"server", "mapRoles"}, "by hand"},
		"an alias on the way":            {"x: &x {mapRoles: [a]}\nserver: *x\n", yamlPath{"server", "mapRoles"}, "by hand"},
		"the document's end":             {"- a\n...\n", nil, ""},
		"an anchor":                      {"&x [a]\n", nil, "by hand"},
		"text that looks like a comment": {"- username: |\n    a\n\n    # b\n", nil, "by hand"},
		"null in brackets":               {"{server: {mapRoles: null}}", yamlPath{"server", "mapRoles"}, "by hand"},
	} {
		y, err := readYAML(c.text)
		if err == nil {
			_, err = y.list(c.path)
		}
		if err == nil {
			_, err = y.add(c.path, entryNode("rolearn", ours, "u", nil))
		}
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// FuzzEdit: an edit makes what was meant or nothing, and taking it back leaves what there was. It is the check after each
// edit that sees to that, so it is enough that nothing panics and that what was put in can be read.
func FuzzEdit(f *testing.F) {
	for _, text := range []string{"", "- a\n", "[a, b]", "server:\n  mapRoles:\n  - roleARN: x\n", "- {a: b}\n# c", "a: |\n  - b\n", "-\n - x\n", "? a\n: b", "\ufeff- a", "- a\r\n- b\r\n"} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, deep bool) {
		var path yamlPath
		if deep {
			path = yamlPath{"server", "mapRoles"}
		}
		y, err := readYAML(text)
		if err != nil {
			return
		}
		was, err := y.list(path)
		if err != nil {
			return
		}
		next, err := y.add(path, entryNode("rolearn", ours, "u", []string{"g"}))
		if err != nil {
			return
		}
		y, err = readYAML(next)
		if err != nil {
			t.Fatal(err)
		}
		is, err := y.list(path)
		if err != nil || len(is) != len(was)+1 {
			t.Fatalf("%d entries after %d: %v", len(is), len(was), err)
		}
		if _, err := y.cut(path, len(is)-1); err != nil && !errors.Is(err, errByHand) {
			t.Fatal(err)
		}
	})
}
