package awsadmin

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// SameDocument reports whether two JSON documents are equal but for their formatting.
func SameDocument(a, b string) bool {
	var left, right any
	if json.Unmarshal([]byte(a), &left) != nil || json.Unmarshal([]byte(b), &right) != nil {
		return a == b
	}
	return reflect.DeepEqual(left, right)
}

// DiffDocuments returns a diff for people: lines that begin with "+ ", "- " or two spaces.
func DiffDocuments(old, next string) (shown []string) {
	unified := strings.TrimRight(string(diff.Diff("", indented(old), "", indented(next))), "\n")
	for i, line := range strings.Split(unified, "\n") {
		switch {
		case i < 3: // file names
		case strings.HasPrefix(line, "@@ -0,") || strings.HasPrefix(line, "@@ -1,"): // nothing is omitted before it
		case strings.HasPrefix(line, "@@"):
			shown = append(shown, "  ...")
		default:
			shown = append(shown, line[:1]+" "+line[1:])
		}
	}
	return shown
}

func indented(document string) []byte {
	var out bytes.Buffer
	if json.Indent(&out, []byte(document), "", "  ") != nil {
		out.Reset()
		out.WriteString(document)
	}
	if text := bytes.TrimRight(out.Bytes(), "\n"); len(text) > 0 {
		return append(text, '\n')
	}
	return nil
}

// statement is the part of a policy's statement that says what it allows.
type statement struct {
	Sid, Effect      string
	Action, Resource oneOrMore
}

func statements(document string) (all []statement) {
	var d struct{ Statement []statement }
	_ = json.Unmarshal([]byte(document), &d) // of another form, it counts as empty
	return d.Statement
}

// NotAllowed returns what a policy allows and others do not: "sqs:SendMessage on arn:…". It ignores their conditions.
func NotAllowed(policy string, others []string) (lacks []string) {
	var has []statement
	for _, document := range others {
		has = append(has, statements(document)...)
	}
	for _, s := range statements(policy) {
		for _, resource := range s.Resource {
			for _, action := range s.Action {
				if s.Effect == "Allow" && !slices.ContainsFunc(has, func(h statement) bool {
					return h.Effect == "Allow" && matches(h.Action, action) && matches(h.Resource, resource)
				}) {
					lacks = append(lacks, action+" on "+resource)
				}
			}
		}
	}
	return lacks
}

// matches reports whether one of the patterns, in which * stands for any text, matches.
func matches(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*") + "$").MatchString(text)
	})
}

// WithoutStatement returns a policy without the statement of that Sid.
func WithoutStatement(document, sid string) (string, error) {
	var d struct {
		Version   string
		Statement []json.RawMessage
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		return "", err
	}
	d.Statement = slices.DeleteFunc(d.Statement, func(one json.RawMessage) bool {
		var s statement
		return json.Unmarshal(one, &s) == nil && s.Sid == sid
	})
	text, err := json.MarshalIndent(d, "", "  ")
	return string(text), err
}
