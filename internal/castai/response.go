package castai

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/castai/kops-spot/internal/spot"
)

// response is the response of CAST AI or of a proxy. None of its texts contains the key.
type response struct {
	code       int
	said       string // the beginning of the body, in one line; empty on success
	location   string // target of a redirect
	retryAfter time.Duration
}

// read reads a response. If the body is interrupted, it uses what has arrived.
func read(resp *http.Response, key string) response {
	text, cut := beginning(resp.Body)
	if success(resp.StatusCode) {
		return response{code: resp.StatusCode}
	}
	return response{
		code:       resp.StatusCode,
		said:       excerpt(text, cut, key),
		location:   excerpt(resp.Header.Get("Location"), false, key),
		retryAfter: retryAfter(resp.Header, time.Now()),
	}
}

func success(code int) bool { return code >= 200 && code < 300 }

func (r response) refusesKey() bool {
	return r.code == http.StatusUnauthorized || r.code == http.StatusForbidden
}

// errorOf maps a response to an error; nil on success.
func (c *Client) errorOf(r response, doing string) error {
	says := fmt.Sprintf("%s: it answers %d", doing, r.code)
	if r.said != "" {
		says += " (" + r.said + ")"
	}
	switch {
	case success(r.code):
		return nil
	case r.code == http.StatusUnauthorized:
		return spot.Permanent(fmt.Errorf("%s: the API key is not valid: "+
			"create a new one in CAST AI's console and replace the old one", says))
	case r.code == http.StatusForbidden:
		return spot.Permanent(fmt.Errorf("%s: the API key is not authorized: "+
			"use a key with full access, of the organization that cluster %s belongs to", says, c.clusterID))
	case r.code == http.StatusNotFound:
		return spot.Permanent(fmt.Errorf("%s: cluster %s not found: copy its ID from the URL of the cluster's page in CAST AI's console, "+
			"and check that %s is CAST AI's API", says, c.clusterID, c.url))
	case r.code >= 300 && r.code < 400:
		return spot.Permanent(fmt.Errorf("%s, a redirect to %q, which is not followed to protect the API key: "+
			"if that is CAST AI's API, change its URL", says, r.location))
	case isTransient(r.code):
		err := errors.New(says)
		if r.retryAfter > 0 {
			return retryAfterError{err, r.retryAfter}
		}
		return err
	}
	return spot.Permanent(fmt.Errorf("%s: not retryable", says))
}

// isTransient reports whether a retry may succeed.
func isTransient(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return code >= 500
}

// retryAfterError carries the delay that the server requests.
type retryAfterError struct {
	error
	wait time.Duration
}

func (e retryAfterError) Unwrap() error { return e.error }

// RetryAfter is the requested delay; more than zero.
func (e retryAfterError) RetryAfter() time.Duration { return e.wait }

// longestWait caps Retry-After; it is longer than any interruption.
const longestWait = 24 * time.Hour

// retryAfter parses Retry-After: seconds or a date (RFC 9110, section 10.2.3), relative to the server's own Date
// header. It is zero if the header is missing or invalid.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestWait)
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, min(until.Sub(now), longestWait))
}

const (
	// excerptLimit is how much of a response an error repeats, in characters.
	excerptLimit = 200

	// minPrefix is the shortest prefix of a key that is redacted at the end of a truncated text.
	minPrefix = 4

	redacted = "[redacted]"
)

// beginning reads a body up to bodyLimit; cut means that it was longer.
func beginning(body io.Reader) (text string, cut bool) {
	read, err := io.ReadAll(io.LimitReader(body, bodyLimit+1))
	return string(read[:min(len(read), bodyLimit)]), err != nil || len(read) > bodyLimit
}

// excerpt returns the beginning of a text in one printable line, without the key, in whatever encoding a server or
// proxy repeats it.
//
// It redacts the key first, before anything is cut or joined. It replaces unprintable characters with spaces instead of
// removing them, which could join two halves of a key.
func excerpt(text string, cut bool, key string) string {
	for _, form := range forms(key) {
		text = strings.ReplaceAll(text, form, redacted)
		for n := len(form) - 1; cut && n >= minPrefix; n-- {
			if before, ok := strings.CutSuffix(text, form[:n]); ok {
				text = before + redacted
			}
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	line := []rune(strings.Join(strings.Fields(text), " "))
	if len(line) > excerptLimit {
		return string(line[:excerptLimit]) + "…"
	}
	return string(line)
}

// forms returns the encodings of a key.
func forms(key string) []string {
	safe, _ := json.Marshal(key) // a string always can be
	plain := strconv.Quote(key)  // JSON that need not be safe in HTML; an error of Go's
	return []string{key, string(safe[1 : len(safe)-1]), plain[1 : len(plain)-1],
		url.QueryEscape(key), url.PathEscape(key), html.EscapeString(key)}
}
