package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Render returns the document with its placeholders filled in. It refuses values that are missing or malformed, and a
// document that has become longer than IAM allows.
func Render(d Document, v Values) ([]byte, error) {
	out, err := render(d, v)
	if err != nil {
		name := d.Name
		if name == "" {
			name = "the trust policy"
		}
		return nil, fmt.Errorf("rendering %s: %w", name, err)
	}
	return out, nil
}

func render(d Document, v Values) ([]byte, error) {
	version, statements, err := d.statements()
	if err != nil {
		return nil, err
	}
	var kept [][]byte
	for _, s := range statements {
		filled, err := fill(s, v)
		if err != nil {
			return nil, err
		}
		if filled != nil {
			kept = append(kept, filled)
		}
	}
	if len(kept) == 0 {
		return nil, errors.New("no statement is left: nothing that it could allow was given")
	}
	return finish(d, version, kept)
}

// statements are those of the document as they are written, with placeholders.
func (d Document) statements() (version string, all []json.RawMessage, err error) {
	text, err := files.ReadFile(d.file)
	if err != nil {
		return "", nil, err
	}
	var policy struct {
		Version   string
		Statement []json.RawMessage
	}
	err = json.Unmarshal(text, &policy)
	return policy.Version, policy.Statement, err
}

// finish puts the statements together again as they were written, and checks the whole.
func finish(d Document, version string, statements [][]byte) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"Version":%q,"Statement":[%s]}`, version, bytes.Join(statements, []byte(",")))
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	if i := bytes.IndexAny(out.Bytes(), "<>"); i >= 0 {
		return nil, fmt.Errorf("an angle bracket is left at %q", out.Bytes()[i:min(i+20, out.Len())])
	}
	if n := Size(out.Bytes()); n > d.limit {
		return nil, fmt.Errorf("it has %d characters, and IAM allows %d", n, d.limit)
	}
	return out.Bytes(), nil
}

// Size returns how long IAM takes a policy document to be: white space does not count.
func Size(document []byte) int {
	n := 0
	for _, r := range string(document) {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

var inBrackets = regexp.MustCompile(`<([^<>]*)>`)

// fill fills in a statement. One whose optional value is missing is left out: nil.
func fill(s []byte, v Values) ([]byte, error) {
	text := string(s)
	var names []string
	for _, m := range inBrackets.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	all := v.placeholders()
	for _, name := range slices.Compact(names) {
		p, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("there is no value called <%s>", name)
		}
		if len(p.values) == 0 {
			if p.optional {
				return nil, nil
			}
			return nil, p.check("")
		}
		for _, value := range p.values {
			if err := p.check(value); err != nil {
				return nil, err
			}
		}
		text = put(text, "<"+name+">", p.values)
	}
	return []byte(text), nil
}

// put replaces a placeholder by its value. If it has several, each JSON string that it stands in becomes as many.
func put(text, placeholder string, values []string) string {
	if len(values) == 1 {
		return strings.ReplaceAll(text, placeholder, values[0])
	}
	stringWithIt := regexp.MustCompile(`(:\s*)?"[^"]*` + placeholder + `[^"]*"`)
	return stringWithIt.ReplaceAllStringFunc(text, func(match string) string {
		colon, written, _ := strings.Cut(match, `"`)
		var all []string
		for _, value := range values {
			all = append(all, `"`+strings.ReplaceAll(written, placeholder, value))
		}
		list := strings.Join(all, ", ")
		if colon == "" { // it is in a list already
			return list
		}
		return colon + "[" + list + "]"
	})
}
