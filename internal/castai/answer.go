package castai

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// answer is what CAST AI, or what stands between it and us, has said. No text in it holds the key.
type answer struct {
	code       int
	said       string // the beginning of the body, in one line; empty after a yes
	location   string // where a redirect leads
	retryAfter time.Duration
}

// read takes from a response what there is to know. An answer that breaks off or dawdles is what has come of it by then.
func read(resp *http.Response, key string) answer {
	text, cut := beginning(resp.Body)
	if success(resp.StatusCode) {
		return answer{code: resp.StatusCode}
	}
	return answer{
		code:       resp.StatusCode,
		said:       excerpt(text, cut, key),
		location:   excerpt(resp.Header.Get("Location"), false, key),
		retryAfter: retryAfter(resp.Header, time.Now()),
	}
}

func success(code int) bool { return code >= 200 && code < 300 }

func (a answer) refusesKey() bool {
	return a.code == http.StatusUnauthorized || a.code == http.StatusForbidden
}

// meaning is the one table of what an answer means to the caller: nil is yes.
func (c *Client) meaning(a answer, doing string) error {
	says := fmt.Sprintf("%s: it answers %d", doing, a.code)
	if a.said != "" {
		says += " (" + a.said + ")"
	}
	switch {
	case success(a.code):
		return nil
	case a.code == http.StatusUnauthorized:
		return spot.PossiblyTransient(fmt.Errorf("%s: it does not accept the API key: "+
			"make a new one in CAST AI's console and put it in the place of the old one", says))
	case a.code == http.StatusForbidden:
		return spot.PossiblyTransient(fmt.Errorf("%s: the API key may not do this: "+
			"use a key with full access, of the organization that cluster %s belongs to", says, c.clusterID))
	case a.code == http.StatusNotFound:
		return spot.Permanent(fmt.Errorf("%s: it knows no cluster %s: take the id from the address of the cluster's page in CAST AI's console, "+
			"and make sure that %s is CAST AI's API", says, c.clusterID, c.url))
	case a.code >= 300 && a.code < 400:
		return spot.Permanent(fmt.Errorf("%s, a redirect to %q, which is not followed because the API key would go there: "+
			"if that is CAST AI's API, set its URL to where it is now", says, a.location))
	case mayPass(a.code):
		err := errors.New(says)
		if a.retryAfter > 0 {
			return asksToWait{err, a.retryAfter}
		}
		return err
	}
	return spot.Permanent(fmt.Errorf("%s: the same request would get the same answer", says))
}

// mayPass reports whether the same request may get another answer a moment later.
func mayPass(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return code >= 500
}

// asksToWait is the error of a server that says when to try again.
type asksToWait struct {
	error
	wait time.Duration
}

func (e asksToWait) Unwrap() error { return e.error }

// RetryAfter is how long the server wants to be left alone; more than zero.
func (e asksToWait) RetryAfter() time.Duration { return e.wait }

// longestWait is what any longer wish counts as: more than any interruption has.
const longestWait = 24 * time.Hour

// retryAfter reads the header Retry-After: whole seconds or a date (RFC 9110, section 10.2.3). A date counts from the
// server's own, so that a wrong clock of ours does not matter. It is zero if there is no such wish, or none to understand.
func retryAfter(h http.Header, now time.Time) time.Duration {
	wish := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(wish, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestWait)
	}
	until, err := http.ParseTime(wish)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(0, min(until.Sub(now), longestWait))
}
