package onboard

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The way YAML is written that is also JSON's: in brackets.

// addFlow returns the text with one item more in a list, or one key more in a mapping.
func (y yamlText) addFlow(at, item *yaml.Node) (string, error) {
	start, end, err := y.brackets(at)
	if err != nil {
		return "", err
	}
	put, err := flow(item)
	if err != nil {
		return "", err
	}
	if at.Kind == yaml.MappingNode {
		put = put[1 : len(put)-1] // a key and its value, without brackets of their own
	}
	inner := y.text[start+1 : end-1]
	where := start + 1 + len(strings.TrimRight(inner, " \t\r\n"))
	if strings.Contains(inner, "#") { // what ends the list's last line may be a comment
		where = end - 1
	}
	if len(at.Content) > 0 {
		next := y.text[:where] + ", " + put + y.text[where:]
		if _, err := readYAML(next); err == nil { // else there is a comma already
			return next, nil
		}
	}
	return y.text[:where] + put + y.text[where:], nil
}

// flow writes a node in brackets, and its strings in quotes: what needs them in brackets is more than elsewhere.
func flow(n *yaml.Node) (string, error) {
	n = bracketed(n)
	var out bytes.Buffer
	if err := yaml.NewEncoder(&out).Encode(n); err != nil {
		return "", err
	}
	return strings.TrimSpace(out.String()), nil
}

func bracketed(n *yaml.Node) *yaml.Node {
	b := *n
	b.Content = nil
	for i, c := range n.Content {
		c = bracketed(c)
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			c.Style = 0
		}
		b.Content = append(b.Content, c)
	}
	b.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		b.Style = yaml.DoubleQuotedStyle
	}
	return &b
}

// cutFlow returns the text without an item of a list.
func (y yamlText) cutFlow(list *yaml.Node, i int) (string, error) {
	start, end, err := y.brackets(list)
	if err != nil {
		return "", err
	}
	from, err := y.offset(list.Content[i])
	if err != nil {
		return "", err
	}
	to := start + 1 + len(strings.TrimRight(y.text[start+1:end-1], " \t\r\n"))
	switch {
	case i+1 < len(list.Content):
		if to, err = y.offset(list.Content[i+1]); err != nil {
			return "", err
		}
	case i > 0:
		comma := len(strings.TrimRight(y.text[:from], " \t\r\n")) - 1
		next := y.text[:max(comma, 0)] + y.text[to:]
		if _, err := readYAML(next); err == nil && y.text[comma] == ',' { // else it is one before a comment, or in it
			return next, nil
		}
	}
	return y.text[:from] + y.text[to:], nil
}

// brackets is where a node in brackets begins, and where it ends: the parser tells only the first. It is the nearest bracket
// with which it can be read.
func (y yamlText) brackets(n *yaml.Node) (start, end int, err error) {
	if start, err = y.offset(n); err != nil {
		return 0, 0, err
	}
	closing := map[byte]byte{'[': ']', '{': '}'}[y.text[start]]
	if closing == 0 {
		return 0, 0, errByHand // it has a tag or an anchor before it
	}
	for end = start + 1; end < len(y.text); end++ {
		if y.text[end] == closing && yaml.Unmarshal([]byte(y.text[start:end+1]), new(yaml.Node)) == nil {
			return start, end + 1, nil
		}
	}
	return 0, 0, errByHand
}

// offset is where in the text a node begins.
func (y yamlText) offset(n *yaml.Node) (int, error) {
	lines := splitLines(y.text)
	if n.Line < 1 || n.Line > len(lines) {
		return 0, errByHand
	}
	in, err := byteOf(lines[n.Line-1], n.Column)
	return len(strings.Join(lines[:n.Line-1], "")) + in, err
}

// byteOf is the byte of a line at which the parser's column is, which counts characters from one.
func byteOf(line string, column int) (int, error) {
	in := 0
	for range column - 1 {
		_, size := utf8.DecodeRuneInString(line[in:])
		in += size
	}
	if in >= len(line) {
		return 0, errByHand
	}
	return in, nil
}
