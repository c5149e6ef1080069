package sts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateFormat = "20060102T150405Z"

	// window is how far a request's date may be from the server's clock, either way. A URL is good for as long,
	// whatever its X-Amz-Expires says: STS ignores that (https://github.com/kubernetes-sigs/aws-iam-authenticator/pull/160).
	window = 15 * time.Minute

	// longest is what Signature Version 4 allows for X-Amz-Expires: seven days.
	longest = 7 * 24 * 60 * 60
)

// signature is what a request says about its Signature Version 4.
type signature struct {
	presigned   bool
	accessKeyID string
	scope       []string // day, region, service, aws4_request
	date        string   // X-Amz-Date
	expires     string   // X-Amz-Expires, of a presigned one
	token       string   // X-Amz-Security-Token
	headers     []string // names of those that are signed
	value       string
}

// readSignature reads the Authorization header, or else the query of a presigned URL.
func readSignature(r *http.Request, query url.Values) (signature, *refusal) {
	var s signature
	var credential, headers string
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		rest, ok := strings.CutPrefix(authorization, algorithm+" ")
		if !ok {
			return s, incomplete("Unsupported AWS 'algorithm'")
		}
		fields := map[string]string{}
		for field := range strings.SplitSeq(rest, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			fields[name] = value
		}
		credential, headers, s.value = fields["Credential"], fields["SignedHeaders"], fields["Signature"]
		s.date, s.token = r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
	} else {
		if !query.Has("X-Amz-Signature") && !query.Has("X-Amz-Credential") {
			return s, refuse(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
		}
		if query.Get("X-Amz-Algorithm") != algorithm {
			return s, incomplete("Unsupported AWS 'algorithm'")
		}
		s.presigned, s.expires = true, query.Get("X-Amz-Expires")
		credential, headers, s.value = query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature")
		s.date, s.token = query.Get("X-Amz-Date"), query.Get("X-Amz-Security-Token")
	}
	for _, part := range [][2]string{{"Credential", credential}, {"SignedHeaders", headers}, {"Signature", s.value}, {"X-Amz-Date", s.date}} {
		if part[1] == "" {
			return s, incomplete(fmt.Sprintf("Authorization requires '%s'", part[0]))
		}
	}
	parts := strings.Split(credential, "/")
	if len(parts) != 5 {
		return s, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term")
	}
	s.accessKeyID, s.scope, s.headers = parts[0], parts[1:], strings.Split(headers, ";")
	return s, nil
}

// check refuses the request unless the identity signed it, for here and for now.
func (s signature) check(identity Identity, r *http.Request, query url.Values, body []byte, now time.Time) *refusal {
	if err := s.checkScope(r.Host); err != nil {
		return err
	}
	if err := s.checkDate(now); err != nil {
		return err
	}
	if s.token != identity.SessionToken {
		return invalidToken()
	}
	if !identity.Expires.IsZero() && now.After(identity.Expires) {
		return refuse(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	}
	if !slices.Contains(s.headers, "host") {
		return mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	want := s.compute(identity.SecretAccessKey, canonicalRequest(r, query, s.headers, body))
	if !hmac.Equal([]byte(want), []byte(s.value)) {
		return mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key " +
			"and signing method. Consult the service documentation for details.")
	}
	return nil
}

func (s signature) checkScope(host string) *refusal {
	day, region, service, end := s.scope[0], s.scope[1], s.scope[2], s.scope[3]
	switch {
	case end != "aws4_request":
		return mismatch(fmt.Sprintf("Credential should be scoped with a valid terminator: 'aws4_request', not '%s'.", end))
	case service != "sts":
		return mismatch("Credential should be scoped to correct service: 'sts'.")
	case region != regionOf(host, region):
		return mismatch("Credential should be scoped to a valid region.")
	case !strings.HasPrefix(s.date, day+"T"):
		return mismatch(fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%.8s', from '%s'.",
			day, s.date, s.date))
	}
	return nil
}

// regionOf returns the region whose STS has the host name: us-east-1 for the global one, other for none of STS's.
func regionOf(host, other string) string {
	switch labels := strings.Split(host, "."); {
	case host == "sts.amazonaws.com":
		return "us-east-1"
	case len(labels) >= 4 && labels[0] == "sts" && labels[2] == "amazonaws":
		return labels[1]
	default:
		return other
	}
}

func (s signature) checkDate(now time.Time) *refusal {
	date, err := time.Parse(dateFormat, s.date)
	if err != nil {
		return incomplete(fmt.Sprintf("Date must be in ISO-8601 'basic format'. Got '%s'.", s.date))
	}
	// STS ignores the value, but one that Signature Version 4 does not allow is the mistake of whoever wrote it.
	if s.expires != "" {
		if seconds, err := strconv.Atoi(s.expires); err != nil || seconds < 1 || seconds > longest {
			return incomplete(fmt.Sprintf("X-Amz-Expires must be a number of seconds from 1 to %d. Got '%s'.", longest, s.expires))
		}
	}
	clock := func(t time.Time) string { return t.UTC().Format(dateFormat) }
	if earliest := now.Add(-window); date.Before(earliest) {
		return mismatch(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 15 min.)", s.date, clock(earliest), clock(now)))
	}
	if latest := now.Add(window); date.After(latest) {
		return mismatch(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 15 min.)", s.date, clock(latest), clock(now)))
	}
	return nil
}

// compute returns the signature that the secret key makes of a canonical request
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
func (s signature) compute(secret, canonical string) string {
	hash := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{algorithm, s.date, strings.Join(s.scope, "/"), hex.EncodeToString(hash[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range s.scope {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, toSign))
}

func mac(key []byte, message string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}

func canonicalRequest(r *http.Request, query url.Values, headers []string, body []byte) string {
	var lines []string
	for _, name := range headers {
		lines = append(lines, name+":"+headerValue(r, name))
	}
	hash := sha256.Sum256(body)
	return strings.Join([]string{
		r.Method,
		"/",
		canonicalQuery(query),
		strings.Join(lines, "\n") + "\n",
		strings.Join(headers, ";"),
		hex.EncodeToString(hash[:]),
	}, "\n")
}

// canonicalQuery returns the query without its signature, sorted by name and then by value, both escaped.
func canonicalQuery(query url.Values) string {
	var pairs [][2]string
	for name, values := range query {
		for _, value := range values {
			if name != "X-Amz-Signature" {
				pairs = append(pairs, [2]string{escape(name), escape(value)})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	var all []string
	for _, pair := range pairs {
		all = append(all, pair[0]+"="+pair[1])
	}
	return strings.Join(all, "&")
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// headerValue returns a header as it was signed. net/http keeps two of them elsewhere.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	var values []string
	for _, value := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(value), " "))
	}
	return strings.Join(values, ",")
}
