package iam_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

func documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/iam.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDocsNameEveryDocument(t *testing.T) {
	t.Parallel()
	text := documentation(t)
	names := slices.Clone(iam.UserManaged)
	for _, name := range iam.GuideRoleManaged {
		names = append(names, strings.TrimPrefix(name, "service-role/"))
	}
	for _, d := range iam.Documents {
		if d.Name != "" {
			names = append(names, d.Name)
		}
	}
	for _, name := range names {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/iam.md does not name %s", name)
		}
	}
}

// TestDocsNameEveryException, and no others.
func TestDocsNameEveryException(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(documentation(t), "\n## Exceptions\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented, found []string
	for line := range strings.SplitSeq(section, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		for _, action := range strings.Split(strings.ReplaceAll(cells[1], "`", ""), ",") {
			documented = append(documented, strings.TrimSpace(action)+" by "+strings.TrimSpace(cells[2]))
		}
	}
	for _, e := range exceptions {
		found = append(found, e.actions+" by "+e.policy)
	}
	slices.Sort(documented)
	slices.Sort(found)
	if !slices.Equal(documented, found) {
		t.Errorf("docs/iam.md has the exceptions\n%s\nand the tests find\n%s", strings.Join(documented, "\n"),
			strings.Join(found, "\n"))
	}
}

// TestDocsNameConditionsOnMissingKeys: a condition that holds without its key depends on AWS sending the key. The
// reverse is true for a denial: it does nothing if the request lacks the key.
func TestDocsNameConditionsOnMissingKeys(t *testing.T) {
	t.Parallel()
	text := documentation(t)
	for name, document := range library(t) {
		for _, s := range statementsOf(t, document) {
			for operator, conditions := range s.Condition {
				for key, value := range conditions {
					value, _ := value.(string)
					// A request that sets tags always sends their keys.
					if key == "aws:TagKeys" || vacuous(operator, value) != (s.Effect == "Allow") {
						continue
					}
					if !strings.Contains(text, "`"+key+"`") {
						t.Errorf("%s, %s: docs/iam.md does not name %s", name, s.Sid, key)
					}
				}
			}
		}
	}
}
