package iam_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// A request is one question that IAM answers when AWS is called. A call may raise several: to launch an instance is to be
// allowed for the instance, its subnet, its image and more.
type request struct {
	Documents      []string `json:"documents,omitempty"`      // the principal's policies, by their name in library
	Boundary       string   `json:"boundary,omitempty"`       // its permissions boundary
	ResourcePolicy string   `json:"resourcePolicy,omitempty"` // of a role, its trust policy
	Principal      string   `json:"principal"`
	Account        string   `json:"account"` // the resource's
	Action         string   `json:"action"`
	Resource       string   `json:"resource"`
	Facts          facts    `json:"facts,omitempty"`
}

// Facts are what is so, by condition key. Those that AWS does not document for the action and the type of the resource are
// left out by simulate.mjs: AWS would not know them.
type facts map[string]any

// An answer is the simulator's. An error is never taken for a denial.
type answer struct {
	Result string `json:"result"`
	Error  string `json:"error"`
}

func (a answer) allowed() bool { return a.Result == "Allowed" }

// An action is what AWS documents of one.
type action struct {
	Write bool           `json:"write"`
	Keys  []string       `json:"keys"` // condition keys of every request, in lower case; up to the slash if a tag's key follows
	Types []resourceType `json:"types"`
}

type resourceType struct {
	Name string   `json:"name"`
	ARN  string   `json:"arn"`
	Keys []string `json:"keys"` // condition keys of requests on this type
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

// A call is what one call of AWS's API has to be allowed. What it is meant to show is its name.
type call struct {
	name     string
	requests []request
	allowed  bool
}

// prove asks for all calls at once, and fails where one is not as it is to be. A call is allowed if all its requests are.
func prove(t *testing.T, calls []call) {
	t.Helper()
	var q question
	for _, c := range calls {
		if len(c.requests) == 0 {
			t.Errorf("%s: nothing is asked", c.name)
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
