package identitymap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

// readYAML reads a document as nodes and as a value. The parser's errors name the line.
func readYAML(text string) (doc *yaml.Node, value any, err error) {
	doc = new(yaml.Node)
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err = decoder.Decode(doc); errors.Is(err, io.EOF) { // it is empty but for comments
		comments := strings.TrimSpace(text)
		return &yaml.Node{Kind: yaml.DocumentNode, HeadComment: comments, Content: []*yaml.Node{yamlNull()}}, nil, nil
	}
	if err == nil && !errors.Is(decoder.Decode(new(yaml.Node)), io.EOF) {
		err = errors.New("it has more than one document")
	}
	if err == nil {
		err = doc.Decode(&value) // fails for a duplicate key or a recursive alias
	}
	return doc, value, err
}

// listAt returns the list at a path, and creates what is missing. Like the authenticator, it ignores the case of keys.
func listAt(at *yaml.Node, path []string) (*yaml.Node, error) {
	if at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	want := yaml.SequenceNode
	if len(path) > 0 {
		want = yaml.MappingNode
	}
	if at.Kind == yaml.ScalarNode && (at.Tag == "!!null" || at.Value == "") {
		at.Kind, at.Tag, at.Value = want, "", ""
	}
	switch {
	case at.Kind != want && len(path) > 0:
		return nil, fmt.Errorf("line %d: it should be a mapping with the key %s", at.Line, path[0])
	case at.Kind != want:
		return nil, fmt.Errorf("line %d: it should be a list", at.Line)
	case len(at.Content) == 0:
		at.Style = 0
	}
	if len(path) == 0 {
		return at, nil
	}
	switch i := keysAt(at, path[0]); len(i) {
	case 0:
		null := yamlNull()
		at.Content = append(at.Content, yamlString(path[0]), null)
		return listAt(null, path[1:])
	case 1:
		return listAt(at.Content[i[0]+1], path[1:])
	default:
		return nil, fmt.Errorf("line %d: duplicate key %s", at.Content[i[1]].Line, path[0])
	}
}

// keysAt returns the indexes of a key in a mapping.
func keysAt(at *yaml.Node, key string) (all []int) {
	for i := 0; i < len(at.Content); i += 2 {
		if strings.EqualFold(at.Content[i].Value, key) {
			all = append(all, i)
		}
	}
	return all
}

// dropEmpty removes the end of a path that listAt has found, as far as it is empty and has no comment.
func dropEmpty(at *yaml.Node, path []string) {
	if len(path) == 0 || at.Kind != yaml.MappingNode {
		return
	}
	i := keysAt(at, path[0])[0]
	key, value := at.Content[i], at.Content[i+1]
	dropEmpty(value, path[1:])
	switch {
	case len(value.Content) > 0:
	case comments(key)+comments(value) == "":
		at.Content = slices.Delete(at.Content, i, i+2)
	default: // the encoder writes an empty list with comments in a form that the parser refuses
		value.Kind, value.Tag = yaml.ScalarNode, "!!null"
	}
}

func comments(n *yaml.Node) string { return n.HeadComment + n.LineComment + n.FootComment }

// editList edits the entries of one ARN in the list at a path. If nothing changes, the text stays as it is. Otherwise
// it is written anew, maybe with other blank lines and quotes. It fails if the new text does not parse to the edited
// nodes, or if it changes anything for others.
func editList(text string, path []string, arn string, edit func(*yaml.Node, []entry) error) (string, error) {
	doc, _, err := readYAML(text)
	if err != nil {
		return "", err
	}
	root := doc.Content[0]
	list, err := listAt(root, path)
	if err != nil {
		return "", err
	}
	before := entriesOf(list)
	if err := edit(list, before); err != nil {
		return "", err
	}
	if reflect.DeepEqual(before, entriesOf(list)) {
		return text, nil
	}
	dropEmpty(root, path)
	var want any
	if err := doc.Decode(&want); err != nil {
		return "", err
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(doc); err != nil {
		return "", err
	}
	_, got, err := readYAML(out.String())
	if err != nil {
		return "", fmt.Errorf("the edited text does not parse: %w", err)
	}
	theirs, err := otherEntries(text, path, arn)
	if err != nil {
		return "", err
	}
	after, err := otherEntries(out.String(), path, arn)
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(after, theirs) {
		return "", errors.New("an edit would change it for others")
	}
	return out.String(), nil
}

// otherEntries returns what the authenticator reads about everybody else. It uses an older version of YAML, in which an
// unquoted word may be another value.
func otherEntries(text string, path []string, arn string) (any, error) {
	var v any
	err := utilyaml.Unmarshal([]byte(text), &v)
	return dropEntries(v, path, arn), err
}

// dropEntries returns a value without an ARN's entries in the list at a path, and without empty values on the way
// there.
func dropEntries(v any, path []string, arn string) any {
	if list, is := v.([]any); is && len(path) == 0 {
		list = slices.DeleteFunc(list, func(item any) bool { return strings.EqualFold(readEntry(item).arn, arn) })
		if len(list) > 0 {
			return list
		}
		return nil
	}
	m, isMap := v.(map[string]any)
	for key, value := range m {
		if len(path) > 0 && strings.EqualFold(key, path[0]) {
			if m[key] = dropEntries(value, path[1:], arn); m[key] == nil {
				delete(m, key)
			}
		}
	}
	if v == "" || isMap && len(m) == 0 {
		return nil
	}
	return v
}

func yamlNull() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"} }

func yamlString(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}
