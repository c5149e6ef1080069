package awsadmin

import (
	"bytes"
	"encoding/json"
	"reflect"
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
