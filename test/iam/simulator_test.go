package iam_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// A request is one authorization check by IAM. A call can require several: launching an instance requires permission
// for the instance, its subnet, its image and more.
type request struct {
	Documents      []string `json:"documents,omitempty"`      // the principal's policies, by name in library
	Boundary       string   `json:"boundary,omitempty"`       // permissions boundary
	ResourcePolicy string   `json:"resourcePolicy,omitempty"` // of a role: its trust policy
	Principal      string   `json:"principal"`
	Account        string   `json:"account"` // of the resource
	Action         string   `json:"action"`
	Resource       string   `json:"resource"`
	Facts          facts    `json:"facts,omitempty"`
}

// facts are the values of condition keys. simulate.mjs leaves out the keys that AWS does not document for the action
// and resource type.
type facts map[string]any

// An answer is the simulator's. An error never counts as a denial.
type answer struct {
	Result string `json:"result"`
	Error  string `json:"error"`
}

func (a answer) allowed() bool { return a.Result == "Allowed" }

// An action is an action as documented by AWS.
type action struct {
	Write bool           `json:"write"`
	Keys  []string       `json:"keys"` // condition keys of every request, in lower case; up to the slash if a tag key follows
	Types []resourceType `json:"types"`
}

type resourceType struct {
	Name string   `json:"name"`
	ARN  string   `json:"arn"`
	Keys []string `json:"keys"` // condition keys of requests for this type
}

type question struct {
	Documents map[string]json.RawMessage `json:"documents"`
	Requests  []request                  `json:"requests,omitempty"`
	Describe  []string                   `json:"describe,omitempty"`
	Expand    []string                   `json:"expand,omitempty"`
}

type reply struct {
	Answers  []answer            `json:"answers"`
	Actions  map[string]action   `json:"actions"`
	Expanded map[string][]string `json:"expanded"`
}

// ask runs the simulator once.
func ask(t *testing.T, q question) reply {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: install Node.js 20 or later, with npm, and run `make simulator`")
	}
	if _, err := os.Stat("node_modules/@cloud-copilot/iam-simulate"); err != nil {
		t.Fatal("the policy simulator is not installed: run `make simulator`")
	}
	q.Documents = library(t)
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "simulate.mjs")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running the policy simulator: %v", err)
	}
	var r reply
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Answers) != len(q.Requests) {
		t.Fatalf("%d answers to %d requests", len(r.Answers), len(q.Requests))
	}
	for i, a := range r.Answers {
		if a.Error != "" {
			t.Errorf("%s on %s: %s", q.Requests[i].Action, q.Requests[i].Resource, a.Error)
		}
	}
	return r
}

// A call is one API call and whether it must be allowed. Its name describes it.
type call struct {
	name     string
	requests []request
	allowed  bool
}

// prove checks all calls in one run. A call is allowed if all its requests are.
func prove(t *testing.T, calls []call) {
	t.Helper()
	var q question
	for _, c := range calls {
		if len(c.requests) == 0 {
			t.Errorf("%s: no requests", c.name)
		}
		q.Requests = append(q.Requests, c.requests...)
	}
	answers := ask(t, q).Answers
	for _, c := range calls {
		var denied []string
		for i, r := range c.requests {
			if !answers[i].allowed() {
				denied = append(denied, r.Action+" on "+r.Resource+": "+answers[i].Result)
			}
		}
		answers = answers[len(c.requests):]
		if got := len(denied) == 0; got != c.allowed {
			t.Errorf("%s: allowed is %v, want %v %q", c.name, got, c.allowed, denied)
		}
	}
}
