package iam_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"sync"
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
	Requests []request `json:"requests,omitempty"`
	Describe []string  `json:"describe,omitempty"`
	Expand   []string  `json:"expand,omitempty"`
}

type reply struct {
	Answers  []answer            `json:"answers"`
	Actions  map[string]action   `json:"actions"`
	Expanded map[string][]string `json:"expanded"`
}

// A simulator is a process that knows all documents. It ends with the tests, when its standard input does.
type simulator struct {
	in  *json.Encoder
	out *json.Decoder
}

// simulators are those that answer no question now; nil for one that is not started yet.
var simulators = sync.OnceValue(func() chan *simulator {
	free := make(chan *simulator, 2)
	free <- nil
	free <- nil
	return free
})

func startSimulator(t *testing.T) *simulator {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: install Node.js 20 or later, with npm, and run `make simulator`")
	}
	if _, err := os.Stat("node_modules/@cloud-copilot/iam-simulate"); err != nil {
		t.Fatal("the policy simulator is not installed: run `make simulator`")
	}
	cmd := exec.Command("node", "simulate.mjs")
	cmd.Stderr = os.Stderr
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	s := &simulator{json.NewEncoder(in), json.NewDecoder(out)}
	if err := errors.Join(errIn, errOut, cmd.Start(), s.in.Encode(library(t))); err != nil {
		t.Fatalf("starting the policy simulator: %v", err)
	}
	return s
}

// ask asks a simulator.
func ask(t *testing.T, q question) reply {
	t.Helper()
	s := <-simulators()
	defer func() { simulators() <- s }()
	if s == nil {
		s = startSimulator(t)
	}
	var r reply
	if err := errors.Join(s.in.Encode(q), s.out.Decode(&r)); err != nil {
		t.Fatalf("asking the policy simulator: %v", err)
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
