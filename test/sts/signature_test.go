package sts_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsxml "github.com/aws/aws-sdk-go-v2/aws/protocol/xml"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/castai/kops-spot/test/sts"
)

const account, host, region = "111122223333", "sts.eu-central-1.amazonaws.com", "eu-central-1"

// call is a request as AWS's own signer makes it, before something is broken.
type call struct {
	identity        sts.Identity
	host            string
	region, service string
	at              time.Time
	parameters      url.Values
	header          http.Header // of what is signed beside it
}

func newCall(i sts.Identity) call {
	return call{
		identity: i, host: host, region: region, service: "sts", at: time.Now(),
		parameters: url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}},
		header:     http.Header{},
	}
}

func (c call) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: c.identity.AccessKeyID, SecretAccessKey: c.identity.SecretAccessKey, SessionToken: c.identity.SessionToken}
}

// presigned returns the request that carries its signature in its URL, as the one inside an authenticator's token.
func (c call) presigned(t *testing.T) *http.Request {
	t.Helper()
	r := c.request(t, http.MethodGet, "https://"+c.host+"/?"+c.parameters.Encode(), "")
	signed, header, err := v4.NewSigner().PresignHTTP(context.Background(), c.credentials(), r, hash(""), c.service, c.region, c.at)
	if err != nil {
		t.Fatal(err)
	}
	r = c.request(t, http.MethodGet, signed, "")
	r.Header = header
	return r
}

// posted returns the request that carries its signature in a header, as an SDK sends it.
func (c call) posted(t *testing.T) *http.Request {
	t.Helper()
	body := c.parameters.Encode()
	r := c.request(t, http.MethodPost, "https://"+c.host+"/", body)
	c.header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if err := v4.NewSigner().SignHTTP(context.Background(), c.credentials(), r, hash(body), c.service, c.region, c.at); err != nil {
		t.Fatal(err)
	}
	return r
}

func (c call) request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = c.header
	return r
}

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// edit changes one parameter of a URL that is signed already. An empty value takes it away.
func edit(r *http.Request, name, value string) {
	query := r.URL.Query()
	if query.Set(name, value); value == "" {
		query.Del(name)
	}
	r.URL.RawQuery = query.Encode()
}

// answer returns the status and, of an error, the code and the message as an SDK reads them.
func answer(t *testing.T, s *sts.Server, r *http.Request) (status int, code, message string) {
	t.Helper()
	w := httptest.NewRecorder()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	s.ServeHTTP(w, r)
	if w.Code == http.StatusOK {
		return w.Code, "", ""
	}
	e, err := awsxml.GetErrorResponseComponents(w.Body, false)
	if err != nil {
		t.Fatalf("reading the error of %d: %v", w.Code, err)
	}
	if id := w.Header().Get("X-Amzn-Requestid"); e.RequestID == "" || e.RequestID != id {
		t.Errorf("request %q in the body, %q in the header", e.RequestID, id)
	}
	return w.Code, e.Code, e.Message
}

func TestSignature(t *testing.T) {
	user, role := sts.User(account, "alice"), sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	past := sts.RoleSession(account, "CastLambdaRoleForSpot", "past")
	past.Expires = time.Now().Add(-time.Second)
	s := sts.New(user, role, past)

	const mismatch, badToken = "SignatureDoesNotMatch", "InvalidClientTokenId"
	const calculated = "^The request signature we calculated does not match"
	const expired = `^Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 15 min\.\)$`
	const early = `^Signature not yet current: \d{8}T\d{6}Z is still later than \d{8}T\d{6}Z \(\d{8}T\d{6}Z \+ 15 min\.\)$`

	for _, c := range []struct {
		name     string
		identity sts.Identity
		before   func(*call)         // is signed
		after    func(*http.Request) // a URL that is signed already
		status   int
		code     string
		message  string
	}{
		{name: "a user", identity: user, status: 200},
		{name: "a role's session", identity: role, status: 200},
		{name: "14 minutes old", identity: role, before: func(c *call) { c.at = c.at.Add(-14 * time.Minute) }, status: 200},
		{name: "14 minutes ahead", identity: role, before: func(c *call) { c.at = c.at.Add(14 * time.Minute) }, status: 200},
		{name: "the global endpoint", identity: user, before: func(c *call) { c.host, c.region = "sts.amazonaws.com", "us-east-1" }, status: 200},
		{name: "an endpoint in China", identity: user, before: func(c *call) { c.host, c.region = "sts.cn-north-1.amazonaws.com.cn", "cn-north-1" }, status: 200},
		{name: "an endpoint on loopback", identity: user, before: func(c *call) { c.host = "127.0.0.1:4566" }, status: 200},
		{name: "a parameter to be escaped", identity: user, before: func(c *call) { c.parameters.Set("X", "a b+c/d~e=") }, status: 200},
		{name: "a header beside it", identity: role, before: func(c *call) { c.header.Set("X-K8s-Aws-Id", "a  cluster ") }, status: 200},

		{name: "an unknown key", identity: sts.User(account, "mallory"), status: 403, code: badToken},
		{name: "a wrong secret", identity: user, before: func(c *call) { c.identity.SecretAccessKey += "x" },
			status: 403, code: mismatch, message: calculated},
		{name: "no session token", identity: role, before: func(c *call) { c.identity.SessionToken = "" }, status: 403, code: badToken},
		{name: "another's session token", identity: role, before: func(c *call) { c.identity.SessionToken = past.SessionToken }, status: 403, code: badToken},
		{name: "a session token with a user's key", identity: user, before: func(c *call) { c.identity.SessionToken = role.SessionToken },
			status: 403, code: badToken},
		{name: "a session that is over", identity: past, status: 403, code: "ExpiredToken"},
		{name: "16 minutes old", identity: role, before: func(c *call) { c.at = c.at.Add(-16 * time.Minute) }, status: 403, code: mismatch, message: expired},
		{name: "16 minutes ahead", identity: role, before: func(c *call) { c.at = c.at.Add(16 * time.Minute) }, status: 403, code: mismatch, message: early},
		{name: "another region's", identity: user, before: func(c *call) { c.region = "eu-west-1" }, status: 403, code: mismatch, message: "valid region"},
		{name: "a region's at the global endpoint", identity: user, before: func(c *call) { c.host = "sts.amazonaws.com" },
			status: 403, code: mismatch, message: "valid region"},
		{name: "another service's", identity: user, before: func(c *call) { c.service = "ec2" }, status: 403, code: mismatch, message: "correct service: 'sts'"},
		{name: "another action", identity: user, before: func(c *call) { c.parameters.Set("Action", "AssumeRole") },
			status: 400, code: "InvalidAction", message: "^Could not find operation AssumeRole for version 2011-06-15$"},
		{name: "no version", identity: user, before: func(c *call) { c.parameters.Del("Version") },
			status: 400, code: "InvalidAction", message: "NO_VERSION_SPECIFIED$"},
		{name: "another path", identity: user, after: func(r *http.Request) { r.URL.Path = "/x" }, status: 404, code: "UnknownOperationException"},
		{name: "another host", identity: user, after: func(r *http.Request) { r.Host = "127.0.0.1" }, status: 403, code: mismatch, message: calculated},
		{name: "another value of a signed header", identity: user, before: func(c *call) { c.header.Set("X-K8s-Aws-Id", "one") },
			after: func(r *http.Request) { r.Header.Set("X-K8s-Aws-Id", "two") }, status: 403, code: mismatch, message: calculated},
		{name: "no value of a signed header", identity: user, before: func(c *call) { c.header.Set("X-K8s-Aws-Id", "one") },
			after: func(r *http.Request) {
				r.Header = http.Header{"Authorization": r.Header["Authorization"], "X-Amz-Date": r.Header["X-Amz-Date"]}
			},
			status: 403, code: mismatch, message: calculated},
	} {
		t.Run(c.name, func(t *testing.T) {
			for form, sign := range map[string]func(call, *testing.T) *http.Request{"presigned": call.presigned, "posted": call.posted} {
				asked := newCall(c.identity)
				if c.before != nil {
					c.before(&asked)
				}
				r := sign(asked, t)
				if c.after != nil {
					c.after(r)
				}
				check(t, s, form, r, c.status, c.code, c.message)
			}
		})
	}
}

func check(t *testing.T, s *sts.Server, what string, r *http.Request, wantStatus int, wantCode, wantMessage string) {
	t.Helper()
	status, code, message := answer(t, s, r)
	if status != wantStatus || code != wantCode || !regexp.MustCompile(wantMessage).MatchString(message) {
		t.Errorf("%s: %d %s: %q; want %d %s: %q", what, status, code, message, wantStatus, wantCode, wantMessage)
	}
}

// TestPresigned breaks what only a presigned URL has.
func TestPresigned(t *testing.T) {
	user := sts.User(account, "alice")
	s := sts.New(user)
	const incomplete = "IncompleteSignature"
	for _, c := range []struct {
		name    string
		expires string // is signed
		after   func(*http.Request)
		status  int
		code    string
		message string
	}{
		{name: "X-Amz-Expires of a minute", expires: "60", status: 200},
		{name: "X-Amz-Expires of a week", expires: "604800", status: 200},
		{name: "X-Amz-Expires past a week", expires: "604801", status: 400, code: incomplete},
		{name: "X-Amz-Expires of nothing", expires: "0", status: 400, code: incomplete},
		{name: "X-Amz-Expires that is no number", expires: "1m", status: 400, code: incomplete},
		{name: "X-Amz-Expires changed", expires: "60", after: func(r *http.Request) { edit(r, "X-Amz-Expires", "61") }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "a parameter more", after: func(r *http.Request) { edit(r, "X", "y") }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "another signature", after: func(r *http.Request) { edit(r, "X-Amz-Signature", strings.Repeat("0", 64)) }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "a wrong terminator", after: func(r *http.Request) {
			edit(r, "X-Amz-Credential", strings.Replace(r.URL.Query().Get("X-Amz-Credential"), "aws4_request", "aws5_request", 1))
		}, status: 403, code: "SignatureDoesNotMatch", message: "not 'aws5_request'"},
		{name: "a credential of another day", after: func(r *http.Request) {
			edit(r, "X-Amz-Date", time.Now().Add(-24*time.Hour).UTC().Format("20060102T150405Z"))
		}, status: 403, code: "SignatureDoesNotMatch", message: "^Date in Credential scope does not match"},
		{name: "host is not signed", after: func(r *http.Request) { edit(r, "X-Amz-SignedHeaders", "x-k8s-aws-id") },
			status: 403, code: "SignatureDoesNotMatch", message: "^'Host' must be"},
		{name: "not signed", after: func(r *http.Request) { r.URL.RawQuery = "Action=GetCallerIdentity&Version=2011-06-15" },
			status: 403, code: "MissingAuthenticationToken"},
		{name: "no signature", after: func(r *http.Request) { edit(r, "X-Amz-Signature", "") }, status: 400, code: incomplete, message: "'Signature'"},
		{name: "no credential", after: func(r *http.Request) { edit(r, "X-Amz-Credential", "") }, status: 400, code: incomplete, message: "'Credential'"},
		{name: "half a credential", after: func(r *http.Request) { edit(r, "X-Amz-Credential", user.AccessKeyID) }, status: 400, code: incomplete, message: "5 slash"},
		{name: "no signed headers", after: func(r *http.Request) { edit(r, "X-Amz-SignedHeaders", "") }, status: 400, code: incomplete, message: "'SignedHeaders'"},
		{name: "no date", after: func(r *http.Request) { edit(r, "X-Amz-Date", "") }, status: 400, code: incomplete, message: "'X-Amz-Date'"},
		{name: "a date that is none", after: func(r *http.Request) { edit(r, "X-Amz-Date", time.Now().UTC().Format("20060102T")+"noon") },
			status: 400, code: incomplete, message: "'basic format'"},
		{name: "another algorithm", after: func(r *http.Request) { edit(r, "X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256") },
			status: 400, code: incomplete, message: "'algorithm'"},
		{name: "a query that is none", after: func(r *http.Request) { r.URL.RawQuery += "&%" }, status: 400, code: "MalformedQueryString"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := newCall(user)
			if c.expires != "" {
				asked.parameters.Set("X-Amz-Expires", c.expires)
			}
			r := asked.presigned(t)
			if c.after != nil {
				c.after(r)
			}
			check(t, s, "presigned", r, c.status, c.code, c.message)
		})
	}
}

// TestPosted breaks what only a header-signed request has.
func TestPosted(t *testing.T) {
	user := sts.User(account, "alice")
	s := sts.New(user)
	for _, c := range []struct {
		name    string
		after   func(*http.Request)
		status  int
		code    string
		message string
	}{
		{"another body", func(r *http.Request) { body(r, "Action=GetCallerIdentity&Version=2011-06-15&X=y") }, 403, "SignatureDoesNotMatch", ""},
		{"a body that is none", func(r *http.Request) { body(r, "%") }, 400, "MalformedInput", ""},
		{"another method", func(r *http.Request) { r.Method, r.URL.RawQuery = "GET", "Action=GetCallerIdentity&Version=2011-06-15" },
			403, "SignatureDoesNotMatch", ""},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, 400, "IncompleteSignature", "'X-Amz-Date'"},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 400, "IncompleteSignature", "'algorithm'"},
		{"half a header", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x") }, 400, "IncompleteSignature", "'SignedHeaders'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newCall(user).posted(t)
			c.after(r)
			check(t, s, "posted", r, c.status, c.code, c.message)
		})
	}
}

func body(r *http.Request, text string) { r.Body = io.NopCloser(strings.NewReader(text)) }
