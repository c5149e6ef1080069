package onboard

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The way that YAML is mostly written: one thing to a line, and what belongs to it in the lines below, further in.

// insert returns the text with an item more in the list at a path.
func (y yamlText) insert(path yamlPath, item *yaml.Node) (string, error) {
	if y.root == nil {
		lines := splitLines(y.text)
		return splice(lines, len(lines), 0, nested(path, item))
	}
	at := y.root
	for i, step := range path {
		if at.Kind == yaml.AliasNode {
			return "", errByHand
		}
		key, next, err := child(at, step)
		switch {
		case err != nil:
			return "", err
		case next == nil:
			return y.addKey(at, nested(path[i:], item))
		case isNull(next) && (key == nil || at.Style&yaml.FlowStyle != 0):
			return "", errByHand
		case isNull(next):
			return y.fillKey(key, next, nested(path[i+1:], item))
		}
		at = next
	}
	switch {
	case at.Kind != yaml.SequenceNode:
		return "", errByHand
	case at.Style&yaml.FlowStyle != 0:
		return y.addFlow(at, item)
	}
	indent := at.Column - 1
	lines := splitLines(y.text)
	return splice(lines, blockEnd(lines, at.Line-1, indent, true, isItemOf(indent)), indent, nested(nil, item))
}

// nested is an item in a list, in the mappings that lead to it.
func nested(path yamlPath, item *yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
	for i := len(path) - 1; i >= 0; i-- {
		n = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{yamlString(fmt.Sprint(path[i])), n}}
	}
	return n
}

// yamlString is a string as a node.
func yamlString(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// addKey returns the text with one more key at the end of a mapping.
func (y yamlText) addKey(at, keyed *yaml.Node) (string, error) {
	switch {
	case at.Kind != yaml.MappingNode || keyed.Kind != yaml.MappingNode:
		return "", errByHand
	case at.Style&yaml.FlowStyle != 0:
		return y.addFlow(at, keyed)
	}
	indent := at.Column - 1
	lines := splitLines(y.text)
	end := blockEnd(lines, at.Line-1, indent, true, func(in int, _ string) bool { return in >= indent })
	return splice(lines, end, indent, keyed)
}

// fillKey returns the text with a value for a key that has none.
func (y yamlText) fillKey(key, null, value *yaml.Node) (string, error) {
	lines := splitLines(y.text)
	if null.Value != "" { // it says null, or ~
		if null.Line != key.Line {
			return "", errByHand
		}
		line := lines[null.Line-1]
		from, err := byteOf(line, null.Column)
		if err != nil {
			return "", err
		}
		before, after := line[:from], line[from+len(null.Value):]
		lines[null.Line-1] = strings.TrimRight(before, " ") + after
	}
	return splice(lines, key.Line, key.Column-1+2, value)
}

// cutBlock returns the text without an item of a list.
func (y yamlText) cutBlock(list *yaml.Node, i int) (string, error) {
	indent := list.Column - 1
	lines := splitLines(y.text)
	var starts []int
	for n, end := list.Line-1, blockEnd(lines, list.Line-1, indent, false, isItemOf(indent)); n < end; n++ {
		if in, rest := indentOf(lines[n]); in == indent && isDash(rest) {
			starts = append(starts, n)
		}
	}
	if len(starts) != len(list.Content) {
		return "", errByHand // the list begins in the line of what it is in
	}
	from := starts[i]
	end := blockEnd(lines, from, indent, false, func(in int, _ string) bool { return in > indent })
	return cutLines(lines, from, end), nil
}

// cutKey returns the text without a key of a mapping and all that belongs to it.
func (y yamlText) cutKey(path yamlPath) (string, error) {
	at, err := y.node(path[:len(path)-1])
	if err != nil {
		return "", err
	}
	key, _, err := child(at, path[len(path)-1])
	if err != nil {
		return "", err
	}
	if key == nil || at.Style&yaml.FlowStyle != 0 {
		return "", errByHand
	}
	indent := key.Column - 1
	lines := splitLines(y.text)
	end := blockEnd(lines, key.Line-1, indent, false, func(in int, rest string) bool { return in > indent || in == indent && isDash(rest) })
	next := cutLines(lines, key.Line-1, end)
	return next, y.verify(next, path, func([]any) []any { return nil })
}

// blockEnd is the line after the last one of what begins in line start, which is further in than indent; belongs says of a
// line that has content whether it is still part of it. withComments takes along the comments at the end that are further
// in: they are about what is before them.
func blockEnd(lines []string, start, indent int, withComments bool, belongs func(in int, rest string) bool) int {
	end := start + 1
	for i := start + 1; i < len(lines); i++ {
		in, rest := indentOf(lines[i])
		switch {
		case rest == "":
		case strings.HasPrefix(rest, "#"):
			if withComments && in > indent && end == i {
				end = i + 1
			}
		case belongs(in, rest):
			end = i + 1
		default:
			return end
		}
	}
	return end
}

func isItemOf(indent int) func(int, string) bool {
	return func(in int, rest string) bool { return in > indent || in == indent && isDash(rest) }
}

func isDash(rest string) bool { return rest == "-" || strings.HasPrefix(rest, "- ") }

// indentOf is how far in a line is, and what it says.
func indentOf(line string) (in int, rest string) {
	rest = strings.TrimLeft(line, " ")
	return len(line) - len(rest), strings.TrimSpace(rest)
}

func splitLines(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// splice puts a node, written as a block that is indented, before line at. A text without a newline at its end keeps it so.
func splice(lines []string, at, indent int, n *yaml.Node) (string, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(n); err != nil {
		return "", err
	}
	margin := strings.Repeat(" ", indent)
	var block strings.Builder
	for line := range strings.Lines(out.String()) {
		block.WriteString(margin + line)
	}
	put := block.String()
	if at > 0 && !strings.HasSuffix(lines[at-1], "\n") {
		put = "\n" + strings.TrimSuffix(put, "\n")
	}
	return strings.Join(lines[:at], "") + put + strings.Join(lines[at:], ""), nil
}

// cutLines is the text without some lines; it undoes what splice does.
func cutLines(lines []string, from, to int) string {
	before, after := strings.Join(lines[:from], ""), strings.Join(lines[to:], "")
	if to == len(lines) && !strings.HasSuffix(lines[to-1], "\n") {
		before = strings.TrimSuffix(before, "\n")
	}
	return before + after
}
