package onboard

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// sameDocument reports whether two policy documents say the same, however they are written.
func sameDocument(a, b string) bool {
	var left, right any
	if json.Unmarshal([]byte(a), &left) != nil || json.Unmarshal([]byte(b), &right) != nil {
		return a == b
	}
	return reflect.DeepEqual(left, right)
}

// diffContext is how many lines that stay are shown around those that do not.
const diffContext = 2

// diffDocuments shows how one document becomes another: lines that begin with "+ ", "- " or two spaces.
func diffDocuments(old, next string) []string {
	a, b := lines(old), lines(next)
	// The longest common subsequence; documents have a few hundred lines.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var all []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			all = append(all, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			all = append(all, "- "+a[i])
			i++
		default:
			all = append(all, "+ "+b[j])
			j++
		}
	}
	return around(all)
}

// around leaves out the lines that stay and are not near one that does not.
func around(all []string) (shown []string) {
	near := func(at int) bool {
		for i := max(0, at-diffContext); i <= min(len(all)-1, at+diffContext); i++ {
			if !strings.HasPrefix(all[i], " ") {
				return true
			}
		}
		return false
	}
	left := false
	for i, line := range all {
		if near(i) {
			shown, left = append(shown, line), false
		} else if !left {
			shown, left = append(shown, "  ..."), true
		}
	}
	return shown
}

// lines are those of a document, as it would be written for people.
func lines(document string) []string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(document), "", "  ") != nil {
		return strings.Split(strings.TrimRight(document, "\n"), "\n")
	}
	return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
}
