package castai

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestResponses: the class of each response, and the advice for people.
func TestResponses(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour).UTC()
	for _, c := range []struct {
		code   int
		header http.Header
		body   string
		class  class // empty: success
		wait   time.Duration
		want   string
	}{
		{code: 200, body: `{}`},
		{code: 202},
		{code: 204},
		{code: 200, body: "<html>whatever"},
		{code: 400, body: `{"message":"bad event",` + "\n" + ` "fieldViolations":[]}`, class: final,
			want: `is interrupted: it answers 400 ({"message":"bad event", "fieldViolations":[]}): not retryable`},
		{code: 404, class: final, want: "it answers 404: cluster " + clusterID +
			" not found: copy its ID from the URL of the cluster's page"},
		{code: 405, class: final, want: "405"},
		{code: 413, class: final, want: "413"},
		{code: 422, class: final, want: "422"},
		{code: 301, header: http.Header{"Location": {"https://elsewhere.example/x"}}, class: final,
			want: `it answers 301, a redirect to "https://elsewhere.example/x", which is not followed to protect the API key`},
		{code: 303, header: http.Header{"Location": {"/other"}}, class: final, want: `a redirect to "/other"`},
		{code: 307, header: http.Header{"Location": {"https://elsewhere.example/?key=" + url.QueryEscape(secret)}},
			class: final, want: "?key=[redacted]"},
		{code: 308, header: http.Header{"Location": {"https://elsewhere.example/" + secret}}, class: final,
			want: "/[redacted]"},
		{code: 308, class: final, want: `a redirect to ""`},
		{code: 408, class: again, want: "it answers 408"},
		{code: 409, class: again, want: "it answers 409"},
		{code: 425, class: again, want: "it answers 425"},
		{code: 429, class: again, want: "it answers 429"},
		{code: 429, header: http.Header{"Retry-After": {"7"}}, class: again, wait: 7 * time.Second,
			want: "it answers 429"},
		{code: 429, header: http.Header{"Retry-After": {soon.Add(9 * time.Second).Format(http.TimeFormat)},
			"Date": {soon.Format(http.TimeFormat)}},
			class: again, wait: 9 * time.Second, want: "it answers 429"},
		{code: 429, header: http.Header{"Retry-After": {"0"}}, class: again, want: "it answers 429"},
		{code: 500, body: "a\tb\r\n\x1b[31mc\x00\u202ed\xff", class: again, want: "it answers 500 (a b [31mc d�)"},
		{code: 500, header: http.Header{"Retry-After": {"3"}}, class: again, wait: 3 * time.Second,
			want: "it answers 500"},
		{code: 502, body: "<html>Bad Gateway</html>", class: again, want: "it answers 502 (<html>Bad Gateway</html>)"},
		{code: 503, class: again, want: "it answers 503"},
		{code: 503, header: http.Header{"Retry-After": {"30"}}, class: again, wait: 30 * time.Second,
			want: "it answers 503"},
		{code: 503, header: http.Header{"Retry-After": {"in a while"}}, class: again, want: "it answers 503"},
		{code: 504, class: again, want: "it answers 504"},
		{code: 599, class: again, want: "it answers 599"},
	} {
		t.Run(fmt.Sprint(c.code, " ", c.header), func(t *testing.T) {
			url, asked := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				for name, values := range c.header {
					w.Header()[name] = values
				}
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.body)
			})
			err := interrupted(t, clientOf(t, url))
			if asked.Load() != 1 {
				t.Errorf("%d requests: retries are up to the caller", asked.Load())
			}
			if c.class == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			expect(t, err, c.class, "notifying CAST AI that "+providerID+" is interrupted: ", c.want)
			var asks interface{ RetryAfter() time.Duration }
			if asked := errors.As(err, &asks); asked != (c.wait > 0) || asked && asks.RetryAfter() != c.wait {
				t.Errorf("has a delay: %t, want %s: %v", asked, c.wait, err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		wish, date string
		want       time.Duration
	}{
		{"", "", 0},
		{"5", "", 5 * time.Second},
		{" 5 ", at(time.Hour), 5 * time.Second},
		{"-5", "", 0},
		{"1.5", "", 0},
		{"5s", "", 0},
		{"4294967295", "", 24 * time.Hour},
		{"99999999999999999999", "", 0},
		{at(8 * time.Second), "", 8 * time.Second},
		{at(-time.Hour), "", 0},
		{at(8 * time.Second), at(5 * time.Second), 3 * time.Second},
		{at(time.Hour + time.Second), at(time.Hour), time.Second},
		{at(8 * time.Second), "today", 8 * time.Second},
		{at(8 * time.Second), at(9 * time.Second), 0},
		{at(1000 * time.Hour), "", 24 * time.Hour},
		{"Sunday, 01-Mar-26 12:00:04 GMT", "", 4 * time.Second},
	} {
		h := http.Header{}
		h.Set("Retry-After", c.wish)
		h.Set("Date", c.date)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%q at %q: got %s, want %s", c.wish, c.date, got, c.want)
		}
	}
}

// TestKeyIsRedacted in any encoding that a server or a proxy may use.
func TestKeyIsRedacted(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"unchanged":                "no: " + secret + ".",
		"twice":                    secret + " no: " + secret,
		"in plain JSON":            `{"message":"no: c4st\"k3y\\v1+abc/d&f<g>="}`,
		"in JSON":                  `{"message":"no: c4st\"k3y\\v1+abc/d\u0026f\u003cg\u003e="}`,
		"in a URL's query":         "no: /x?key=" + url.QueryEscape(secret),
		"in a URL's path":          "no: /x/" + url.PathEscape(secret),
		"in HTML":                  "<p>no: c4st&#34;k3y\\v1+abc/d&amp;f&lt;g&gt;=</p>",
		"where the excerpt ends":   "no: " + strings.Repeat("x", 189) + secret,
		"where reading ends":       "no: " + strings.Repeat(" ", 64<<10-14) + secret,
		"where reading ends, JSON": "no: " + strings.Repeat(" ", 64<<10-14) + `c4st\"k3y\\v1+abc`,
	} {
		for _, code := range []int{400, 401, 503} {
			url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(code)
				_, _ = io.WriteString(w, body)
			})
			t.Run(name, func(t *testing.T) {
				err := interrupted(t, clientOf(t, url))
				expect(t, err, map[int]class{400: final, 401: final, 503: again}[code], "no: ", "[re")
			})
		}
	}
}

// endless is a body from which no more than one byte beyond the limit may be read.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return copy(p, strings.Repeat("x", len(p))), nil
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	var body endless
	if text, cut := beginning(&body); len(text) != 64<<10 || !cut || body.read != 64<<10+1 {
		t.Errorf("%d bytes kept of %d, cut: %t", len(text), body.read, cut)
	}
	if text, cut := beginning(strings.NewReader(strings.Repeat("x", 64<<10))); len(text) != 64<<10 || cut {
		t.Errorf("%d bytes kept, cut: %t", len(text), cut)
	}
}

// TestHugeBody is not read to its end and hardly repeated.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]class{200: "", 404: final, 500: again} {
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			for r.Context().Err() == nil { // forever, unless the client disconnects
				if _, err := io.WriteString(w, strings.Repeat("é", 4096)); err != nil {
					return
				}
			}
		})
		err := interrupted(t, clientOf(t, url))
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		expect(t, err, want, fmt.Sprintf("it answers %d (%s…)", code, strings.Repeat("é", 200)))
	}
}
