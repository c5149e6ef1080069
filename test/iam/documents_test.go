package iam_test

import (
	"encoding/json"
	"testing"
)

// A statement is a statement of a policy document.
type statement struct {
	Sid       string
	Effect    string
	Action    oneOrMany
	Resource  oneOrMany
	Condition map[string]map[string]any
}

// oneOrMany is a list that IAM may write as a single string.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMany{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

func statementsOf(t *testing.T, document json.RawMessage) []statement {
	t.Helper()
	var policy struct{ Statement []statement }
	if err := json.Unmarshal(document, &policy); err != nil {
		t.Fatal(err)
	}
	return policy.Statement
}
