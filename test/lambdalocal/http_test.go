package lambdalocal

import (
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

type reply struct {
	status int
	header http.Header
	body   string
}

// call sends an Invoke request; path is what stands after the host.
func call(t *testing.T, url, path, body string, headers map[string]string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

const invokePath = "/2015-03-31/functions/fn/invocations"

func serve(t *testing.T, s *Service) string {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// amz keeps what Lambda adds and replaces what is random.
func amz(h http.Header) map[string]string {
	all := map[string]string{}
	for name := range h {
		if strings.HasPrefix(name, "X-Amz") {
			all[name] = h.Get(name)
		}
	}
	if regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(all["X-Amzn-Requestid"]) {
		all["X-Amzn-Requestid"] = "uuid"
	}
	return all
}

func TestInvokeAPI(t *testing.T) {
	t.Parallel()
	url := serve(t, testService(t, nil))
	const (
		arn     = "arn:aws:lambda:us-east-1:123456789012:function:fn"
		escaped = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Afn"
	)
	path := func(name string) string { return "/2015-03-31/functions/" + name + "/invocations" }
	success := map[string]string{"X-Amzn-Requestid": "uuid", "X-Amz-Executed-Version": "$LATEST"}
	failed := map[string]string{"X-Amzn-Requestid": "uuid", "X-Amz-Executed-Version": "$LATEST", "X-Amz-Function-Error": "Unhandled"}
	refused := func(code string) map[string]string {
		return map[string]string{"X-Amzn-Requestid": "uuid", "X-Amzn-Errortype": code}
	}
	accepted := map[string]string{"X-Amzn-Requestid": "uuid"}
	notFound := func(arn string) string { return `{"Message":"Function not found: ` + arn + `","Type":"User"}` }
	typ := func(value string) map[string]string { return map[string]string{"X-Amz-Invocation-Type": value} }

	for name, c := range map[string]struct {
		path, body string
		headers    map[string]string
		status     int
		wantHeader map[string]string
		want       string
	}{
		"no type is RequestResponse": {path: invokePath, body: `{"a":1}`, status: 200, wantHeader: success, want: `{"a":1}`},
		"RequestResponse":            {path: invokePath, body: `[2]`, headers: typ("RequestResponse"), status: 200, wantHeader: success, want: `[2]`},
		"empty body":                 {path: invokePath, status: 200, wantHeader: success, want: `{}`},
		"function error": {path: invokePath, body: `{"do":"error"}`, status: 200, wantHeader: failed,
			want: `{"errorMessage":"it did not work","errorType":"Some.Error"}`},
		"Event":                {path: invokePath, body: `{}`, headers: typ("Event"), status: 202, wantHeader: accepted},
		"DryRun":               {path: invokePath, body: `{}`, headers: typ("DryRun"), status: 204, wantHeader: accepted},
		"name with qualifier":  {path: path("fn:$LATEST"), body: `1`, status: 200, wantHeader: success, want: `1`},
		"partial ARN":          {path: path("123456789012:function:fn"), body: `1`, status: 200, wantHeader: success, want: `1`},
		"ARN":                  {path: path(arn), body: `1`, status: 200, wantHeader: success, want: `1`},
		"escaped ARN":          {path: path(escaped), body: `1`, status: 200, wantHeader: success, want: `1`},
		"escaped ARN, $LATEST": {path: path(escaped + "%3A%24LATEST"), body: `1`, status: 200, wantHeader: success, want: `1`},
		"qualifier parameter":  {path: invokePath + "?Qualifier=%24LATEST", body: `1`, status: 200, wantHeader: success, want: `1`},

		"unknown function": {path: path("other"), status: 404, wantHeader: refused("ResourceNotFoundException"),
			want: notFound("arn:aws:lambda:us-east-1:123456789012:function:other")},
		"unknown function, Event": {path: path("other"), headers: typ("Event"), status: 404, wantHeader: refused("ResourceNotFoundException"),
			want: notFound("arn:aws:lambda:us-east-1:123456789012:function:other")},
		"unknown function, DryRun": {path: path("other"), headers: typ("DryRun"), status: 404, wantHeader: refused("ResourceNotFoundException"),
			want: notFound("arn:aws:lambda:us-east-1:123456789012:function:other")},
		"unknown version": {path: path("fn:7"), status: 404, wantHeader: refused("ResourceNotFoundException"), want: notFound(arn + ":7")},
		"unknown alias": {path: invokePath + "?Qualifier=live", status: 404, wantHeader: refused("ResourceNotFoundException"),
			want: notFound(arn + ":live")},
		"another region": {path: path("arn:aws:lambda:eu-west-1:123456789012:function:fn"), status: 404,
			wantHeader: refused("ResourceNotFoundException"), want: notFound(arn)},
		"another account": {path: path("210987654321:function:fn"), status: 404, wantHeader: refused("ResourceNotFoundException"), want: notFound(arn)},
		"two qualifiers": {path: path("fn:$LATEST") + "?Qualifier=7", status: 400, wantHeader: refused("InvalidParameterValueException"),
			want: `{"Type":"User","message":"The derived qualifier from the function name does not match the specified qualifier."}`},
		"no name": {path: path("f%20n"), status: 400, wantHeader: refused("ValidationException"),
			want: `{"Type":"User","message":"1 validation error detected: Value 'f n' at 'functionName' failed to satisfy constraint: Member must be a function name, a partial ARN or an ARN"}`},
		"unknown type": {path: invokePath, headers: typ("Sync"), status: 400, wantHeader: refused("ValidationException"),
			want: `{"Type":"User","message":"1 validation error detected: Value 'Sync' at 'invocationType' failed to satisfy constraint: Member must be one of [Event, RequestResponse, DryRun]"}`},
		"malformed JSON": {path: invokePath, body: `{"a"`, status: 400, wantHeader: refused("InvalidRequestContentException"),
			want: `{"Type":"User","message":"Could not parse request body into json"}`},
		"malformed JSON, Event": {path: invokePath, body: `{"a"`, headers: typ("Event"), status: 400, wantHeader: refused("InvalidRequestContentException"),
			want: `{"Type":"User","message":"Could not parse request body into json"}`},
		"another operation": {path: "/2015-03-31/functions/fn/concurrency", status: 404, wantHeader: refused("UnknownOperationException"),
			want: `{"Message":"only Invoke is served here: POST /2015-03-31/functions/NAME/invocations","Type":"User"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := call(t, url, c.path, c.body, c.headers)
			equal(t, "status", got.status, c.status)
			equal(t, "body", got.body, c.want)
			if h := amz(got.header); !maps.Equal(h, c.wantHeader) {
				t.Errorf("headers: got %v, want %v", h, c.wantHeader)
			}
			if c.status != http.StatusNoContent {
				equal(t, "content type", got.header.Get("Content-Type"), "application/json")
			}
		})
	}
}

func TestInvokePayloadLimits(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	url := serve(t, s)
	text := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	event := map[string]string{"X-Amz-Invocation-Type": "Event"}

	largest := text(6291456)
	if got := call(t, url, invokePath, largest, nil); got.status != 200 || got.body != largest {
		t.Errorf("6 MB: status %d, %d bytes", got.status, len(got.body))
	}
	got := call(t, url, invokePath, text(6291457), nil)
	equal(t, "status past 6 MB", got.status, 413)
	equal(t, "error past 6 MB", got.header.Get("X-Amzn-Errortype"), "RequestTooLargeException")
	equal(t, "body past 6 MB", got.body, `{"Type":"User","message":"6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"}`)

	equal(t, "status of 1 MB, Event", call(t, url, invokePath, text(1048576), event).status, 202)
	got = call(t, url, invokePath, text(1048577), event)
	equal(t, "status past 1 MB, Event", got.status, 413)
	equal(t, "error past 1 MB, Event", got.header.Get("X-Amzn-Errortype"), "RequestTooLargeException")
	equal(t, "body past 1 MB, Event", got.body, `{"Type":"User","message":"1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"}`)
	drain(t, s)
}

func TestInvokeThrottled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options, *Function)
		reason string
	}{
		"reserved": {func(_ *Options, f *Function) { f.ReservedConcurrency = new(1) }, "ReservedFunctionConcurrentInvocationLimitExceeded"},
		"account":  {func(o *Options, _ *Function) { o.AccountConcurrency = 1 }, "ConcurrentInvocationLimitExceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testService(t, c.change)
			url := serve(t, s)
			first := make(chan reply)
			go func() { first <- call(t, url, invokePath, `{"do":"sleep","ms":300}`, nil) }()
			eventually(t, "the first invocation runs", func() bool { return s.environmentCount() == 1 })
			got := call(t, url, invokePath, `1`, nil)
			equal(t, "status", got.status, 429)
			equal(t, "error", got.header.Get("X-Amzn-Errortype"), "TooManyRequestsException")
			equal(t, "body", got.body, `{"Reason":"`+c.reason+`","Type":"User","message":"Rate Exceeded."}`)
			equal(t, "the first invocation", (<-first).body, `"slept"`)
			equal(t, "status afterwards", call(t, url, invokePath, `1`, nil).status, 200)
		})
	}
}

func TestReservedConcurrencyIsTakenFromTheAccounts(t *testing.T) {
	t.Parallel()
	s := testService(t, func(o *Options, f *Function) {
		o.AccountConcurrency = 2
		reserved := *f
		reserved.Name = "reserved"
		reserved.ReservedConcurrency = new(2)
		o.Functions = []Function{reserved}
	})
	url := serve(t, s)
	got := call(t, url, invokePath, `1`, nil)
	equal(t, "status", got.status, 429)
	if !strings.Contains(got.body, `"ConcurrentInvocationLimitExceeded"`) {
		t.Errorf("body: %s", got.body)
	}
	equal(t, "the other function", call(t, url, "/2015-03-31/functions/reserved/invocations", `1`, nil).status, 200)
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	url := serve(t, testService(t, nil))
	tail := map[string]string{"X-Amz-Log-Type": "Tail"}
	log := func(r reply) string {
		text, err := base64.StdEncoding.DecodeString(r.header.Get("X-Amz-Log-Result"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	call(t, url, invokePath, `1`, nil) // the environment is warm from here
	got := call(t, url, invokePath, `{"do":"print"}`, tail)
	id := got.header.Get("X-Amzn-Requestid")
	want := `^START RequestId: ` + id + ` Version: \$LATEST
to stdout
to stderr
END RequestId: ` + id + `
REPORT RequestId: ` + id + `	Duration: \d+\.\d\d ms	Billed Duration: \d+ ms	Memory Size: 128 MB	Max Memory Used: [1-9]\d* MB	
$`
	if text := log(got); !regexp.MustCompile(want).MatchString(text) {
		t.Errorf("got %q, want %s", text, want)
	}
	long := call(t, url, invokePath, `{"do":"print","text":"`+strings.Repeat("y", 5000)+`"}`, tail)
	equal(t, "length of a long log's tail", len(log(long)), 4096)
	if text := log(long); !strings.HasPrefix(text, "yyy") || !strings.Contains(text, "yyy\nEND RequestId: ") {
		t.Errorf("a long log's tail: %q", text)
	}
	none := call(t, url, invokePath, `{"do":"print"}`, nil)
	if _, set := none.header["X-Amz-Log-Result"]; set {
		t.Error("a log that was not asked for")
	}
}

// slowWriter holds the log up, so that a function's lines pile up behind it.
type slowWriter struct{ buffer }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(30 * time.Millisecond)
	return w.buffer.Write(p)
}

func TestLogIsCompleteWhenTheInvocationEnds(t *testing.T) {
	t.Parallel()
	var log slowWriter
	s := testService(t, func(_ *Options, f *Function) { f.Logs = &log })
	for range 3 {
		text := string(invoke(t, s, `{"do":"print","text":"last"}`).LogTail)
		if !strings.Contains(text, "to stdout\nto stderr\nlast\nEND RequestId: ") {
			t.Errorf("after a response: %s", text)
		}
	}
	for range 3 {
		text := string(invoke(t, s, `{"do":"exit"}`).LogTail)
		if !strings.Contains(text, "no newline\nEND RequestId: ") {
			t.Errorf("after an exit: %s", text)
		}
	}
}

func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	var log buffer
	s := testService(t, func(_ *Options, f *Function) { f.Logs = &log; f.ReservedConcurrency = new(1) })
	url := serve(t, s)
	client := http.Client{Timeout: 100 * time.Millisecond}
	resp, err := client.Post(url+invokePath, "application/json", strings.NewReader(`{"do":"sleep","ms":1500}`))
	if err == nil {
		resp.Body.Close()
		t.Fatal("the caller did not hang up")
	}
	equal(t, "status while it runs on", call(t, url, invokePath, `1`, nil).status, 429)
	eventually(t, "the function ran to its end", func() bool { return strings.Contains(log.String(), "REPORT RequestId: ") })
	if text := log.String(); strings.Contains(text, "Status:") {
		t.Errorf("it did not succeed: %s", text)
	}
}
