package onboard

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlText is a YAML document that people keep by hand: its comments, its blank lines and the way it is written are
// theirs. An edit puts in or cuts out the text of one item of a list, where the parser says that it stands, and leaves
// every other byte as it is. What comes out is read again, and must say what was meant: if it does not, the document is
// written in a way that we do not understand, and nothing is changed.
type yamlText struct {
	text string
	root *yaml.Node // nil if the document says nothing
}

// yamlPath leads to a node: a string is the key of a mapping, whatever its case, as the authenticator reads keys; an int is
// the place in a list.
type yamlPath []any

// errByHand means that a text is valid and that we do not know how to edit it.
var errByHand = errors.New("it is written in a way that cannot be edited safely: edit it by hand")

// readYAML reads a document. The errors of the parser say in which line they are.
func readYAML(text string) (yamlText, error) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return yamlText{text: text}, nil
	case err != nil:
		return yamlText{}, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return yamlText{}, errors.New("there is more than one document in it")
	}
	root := doc.Content[0]
	if isNull(root) && root.Value == "" {
		root = nil
	}
	if strings.ContainsAny(strings.ReplaceAll(text, "\r\n", "\n"), "\r\u0085\u2028\u2029") {
		return yamlText{}, errors.New("there are characters in it that end a line to some programs and not to others")
	}
	y := yamlText{text: text, root: root}
	_, err := y.values() // what parses may still not decode: a key twice, an anchor that is none
	return y, err
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// values is what the document says.
func (y yamlText) values() (v any, err error) {
	if y.root == nil {
		return nil, nil
	}
	err = y.root.Decode(&v)
	return v, err
}

// list is the list at a path; none if there is nothing or null.
func (y yamlText) list(path yamlPath) ([]*yaml.Node, error) {
	at := y.root
	for _, step := range path {
		if at == nil || isNull(at) {
			return nil, nil
		}
		var err error
		if _, at, err = child(at, step); err != nil {
			return nil, err
		}
	}
	switch {
	case at == nil, isNull(at):
		return nil, nil
	case at.Kind == yaml.AliasNode && at.Alias.Kind == yaml.SequenceNode:
		return at.Alias.Content, nil
	case at.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("line %d: there is no list where one belongs", at.Line)
	}
	return at.Content, nil
}

// child is what stands at one step of a path, with its key if it is in a mapping; nil if nothing does.
func child(at *yaml.Node, step any) (key, value *yaml.Node, err error) {
	if at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	switch step := step.(type) {
	case int:
		if at.Kind == yaml.SequenceNode && step < len(at.Content) {
			return nil, at.Content[step], nil
		}
	case string:
		if at.Kind != yaml.MappingNode {
			return nil, nil, fmt.Errorf("line %d: there is no %s, nor anything that could have one", at.Line, step)
		}
		for i := 0; i+1 < len(at.Content); i += 2 {
			if strings.EqualFold(at.Content[i].Value, step) {
				return at.Content[i], at.Content[i+1], nil
			}
		}
	}
	return nil, nil, nil
}

// add returns the text with an item more at the end of the list at a path. Keys that are missing on the way are made.
func (y yamlText) add(path yamlPath, item *yaml.Node) (string, error) {
	next, err := y.insert(path, item)
	if err != nil {
		return "", err
	}
	var value any
	if err := item.Decode(&value); err != nil {
		return "", err
	}
	return next, y.verify(next, path, func(list []any) []any { return append(list, value) })
}

// cut returns the text without the i-th item of the list at a path.
func (y yamlText) cut(path yamlPath, i int) (string, error) {
	at, err := y.node(path)
	if err != nil {
		return "", err
	}
	if at.Kind != yaml.SequenceNode || i >= len(at.Content) {
		return "", errByHand
	}
	remove := y.cutBlock
	if at.Style&yaml.FlowStyle != 0 {
		remove = y.cutFlow
	}
	next, err := remove(at, i)
	if err != nil {
		return "", err
	}
	return next, y.verify(next, path, func(list []any) []any { return append(list[:i:i], list[i+1:]...) })
}

// node is what stands at a path, which is there and is no alias of another place.
func (y yamlText) node(path yamlPath) (*yaml.Node, error) {
	at := y.root
	for _, step := range path {
		if at == nil || at.Kind == yaml.AliasNode {
			return nil, errByHand
		}
		var err error
		if _, at, err = child(at, step); err != nil {
			return nil, err
		}
	}
	if at == nil {
		return nil, errByHand
	}
	return at, nil
}

// verify holds what an edit has made to what it was to do: the list has changed as meant, and nothing else has.
func (y yamlText) verify(next string, path yamlPath, meant func([]any) []any) error {
	was, err := y.values()
	if err != nil {
		return err
	}
	edited, err := readYAML(next)
	if err != nil {
		return fmt.Errorf("%w (an edit would have made of it: %w)", errByHand, err)
	}
	is, err := edited.values()
	if err != nil {
		return err
	}
	wasList, wasRest := takeOut(was, path)
	isList, isRest := takeOut(is, path)
	list, _ := wasList.([]any)
	got, _ := isList.([]any)
	want := meant(list)
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) || !reflect.DeepEqual(prune(wasRest), prune(isRest)) {
		return errByHand
	}
	return nil
}

// takeOut is what stands at a path, and the rest with a hole there.
func takeOut(v any, path yamlPath) (taken, rest any) {
	if len(path) == 0 {
		return v, nil
	}
	switch step := path[0].(type) {
	case int:
		if list, ok := v.([]any); ok && step < len(list) {
			taken, list[step] = takeOut(list[step], path[1:])
		}
	case string:
		m, ok := v.(map[string]any)
		if !ok {
			return nil, v
		}
		for key := range m {
			if strings.EqualFold(key, step) {
				taken, m[key] = takeOut(m[key], path[1:])
			}
		}
	}
	return taken, v
}

// prune is a value without what says nothing: an edit may make a key or leave one empty.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		full := map[string]any{}
		for key, value := range v {
			if value = prune(value); value != nil {
				full[key] = value
			}
		}
		if len(full) > 0 {
			return full
		}
		return nil
	case []any:
		if len(v) == 0 {
			return nil
		}
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = prune(value)
		}
		return list
	}
	return v
}
