package lambdalocal

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRuntimeHeaders(t *testing.T) {
	t.Parallel()
	s := testService(t, func(_ *Options, f *Function) { f.Timeout = 7 * time.Second })
	before := time.Now()
	r := invoke(t, s, `{"do":"headers"}`)
	after := time.Now()
	var h map[string][]string
	decode(t, r.Payload, &h)
	get := func(name string) string { return strings.Join(h[name], "|") }
	equal(t, "request id", get("Lambda-Runtime-Aws-Request-Id"), r.RequestID)
	equal(t, "ARN", get("Lambda-Runtime-Invoked-Function-Arn"), "arn:aws:lambda:us-east-1:123456789012:function:fn")
	equal(t, "content type", get("Content-Type"), "application/json")
	if trace := get("Lambda-Runtime-Trace-Id"); !regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0$`).MatchString(trace) {
		t.Errorf("trace id %q", trace)
	}
	ms, err := strconv.ParseInt(get("Lambda-Runtime-Deadline-Ms"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if ms < before.Add(7*time.Second).UnixMilli() || ms > after.Add(7*time.Second).UnixMilli() {
		t.Errorf("deadline %d is not 7 s after a time from %d to %d", ms, before.UnixMilli(), after.UnixMilli())
	}
}

func TestInvokedARNIsTheOneCalled(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	url := serve(t, s)
	got := call(t, url, "/2015-03-31/functions/fn/invocations?Qualifier=$LATEST", `{"do":"headers"}`,
		map[string]string{"X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793"})
	var h map[string][]string
	decode(t, []byte(got.body), &h)
	equal(t, "ARN", strings.Join(h["Lambda-Runtime-Invoked-Function-Arn"], "|"), "arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST")
	equal(t, "trace id", strings.Join(h["Lambda-Runtime-Trace-Id"], "|"), "Root=1-5759e988-bd862e3fe1be46a994272793")
}

func TestRuntimeAPIRefusals(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	const invalid = `400,"{\"errorMessage\":\"Invalid request ID\",\"errorType\":\"InvalidRequestID\"}"`
	equal(t, "another request's id", string(invoke(t, s, `{"do":"wrong-id"}`).Payload), `[`+invalid+`,`+invalid+`]`)
	equal(t, "out of turn", string(invoke(t, s, `{"do":"twice"}`).Payload),
		`[403,"{\"errorMessage\":\"the current invocation has no response yet\",\"errorType\":\"InvalidStateTransition\"}",`+
			`403,"{\"errorMessage\":\"init is over\",\"errorType\":\"InvalidStateTransition\"}"]`)
	r := invoke(t, s, `{"do":"answer-twice"}`)
	equal(t, "the first of two responses", string(r.Payload), `"first"`)
	if !strings.Contains(string(r.LogTail), `second: 400 {"errorMessage":"Invalid request ID"`) {
		t.Errorf("the second response: %s", r.LogTail)
	}
	equal(t, "invocations of the one environment", identify(t, s).Count, 4)
}

func TestResponseSize(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	r := invoke(t, s, `{"do":"big","size":6291556}`)
	equal(t, "largest response", len(r.Payload), 6291556)
	equal(t, "its function error", r.FunctionError, "")
	r = invoke(t, s, `{"do":"big","size":6291557}`)
	equal(t, "function error", r.FunctionError, "Unhandled")
	equal(t, "payload", string(r.Payload),
		`{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).","errorType":"Function.ResponseSizeTooLarge"}`)
	if !strings.Contains(string(r.LogTail), "response: 413 ") {
		t.Errorf("the runtime's answer: %s", r.LogTail)
	}
}

func TestResponseThatIsNoJSON(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	r := invoke(t, s, `{"do":"text","text":"hello"}`)
	equal(t, "payload", string(r.Payload), "hello")
	equal(t, "function error", r.FunctionError, "")
}
