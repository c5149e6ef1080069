package iam

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Render fills in the placeholders of a document. It refuses missing or malformed values, and a result that exceeds
// IAM's limit.
func Render(d Document, v Values) ([]byte, error) {
	out, err := render(d, v)
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", cmp.Or(d.Name, "the trust policy"), err)
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
		return nil, errors.New("all statements are omitted, since their values are missing")
	}
	return finish(d, version, kept)
}

// statements returns the statements with their placeholders.
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

// finish joins the statements to a document, and checks it.
func finish(d Document, version string, statements [][]byte) ([]byte, error) {
	var b, out bytes.Buffer
	fmt.Fprintf(&b, `{"Version":%q,"Statement":[%s]}`, version, bytes.Join(statements, []byte(",")))
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	if i := bytes.IndexAny(out.Bytes(), "<>"); i >= 0 {
		return nil, fmt.Errorf("unexpected angle bracket at %q", out.Bytes()[i:min(i+20, out.Len())])
	}
	if n := Size(out.Bytes()); n > d.limit {
		return nil, fmt.Errorf("it has %d characters, and IAM allows %d: use fewer or shorter names of roles, secrets or "+
			"subnets", n, d.limit)
	}
	return out.Bytes(), nil
}

// Size returns the length of a policy document as IAM counts it: without white space.
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

// fill fills in a statement. It returns nil if an optional value is missing.
func fill(s []byte, v Values) ([]byte, error) {
	text, all := string(s), v.placeholders()
	for _, m := range inBrackets.FindAllStringSubmatch(text, -1) {
		p, ok := all[m[1]]
		if !ok {
			return nil, fmt.Errorf("unknown placeholder %s", m[0])
		}
		if len(p.values) == 0 {
			if p.optional {
				return nil, nil
			}
			return nil, p.check("")
		}
		var names []string
		for _, value := range p.values {
			if err := p.check(value); err != nil {
				return nil, err
			}
			if p.name != nil {
				value = p.name(value)
			}
			names = append(names, value)
		}
		text = put(text, m[0], names)
	}
	return []byte(text), nil
}

// put replaces a placeholder. For several values, each JSON string with the placeholder becomes that many.
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
