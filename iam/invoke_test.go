package iam

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestNobodyMayInvoke: whoever may invoke a cluster's function can forge an interruption (docs/decisions/0005).
func TestNobodyMayInvoke(t *testing.T) {
	for _, d := range Documents {
		_, statements, err := d.statements()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range statements {
			var s struct {
				Sid, Effect string
				Action      any
			}
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			actions, several := s.Action.([]any)
			if !several {
				actions = []any{s.Action}
			}
			if s.Effect == "Allow" && slices.ContainsFunc(actions, func(a any) bool {
				action := strings.ToLower(a.(string))
				return action == "*" || strings.HasPrefix(action, "lambda:invoke") || strings.HasPrefix(action, "lambda:") && strings.Contains(action, "*")
			}) {
				t.Errorf("%s: %s allows %s", d.file, s.Sid, actions)
			}
		}
	}
}
