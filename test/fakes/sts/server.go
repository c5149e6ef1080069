// Package sts is a fake of AWS's Security Token Service with GetCallerIdentity. It knows the given identities. It
// accepts a request only if AWS's own signer produces the same signature and its date is near the server's clock.
// aws-iam-authenticator and the AWS SDKs work with it.
package sts

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"k8s.io/client-go/util/cert"
)

// window is the maximum difference between a request's date and the server's clock. A presigned URL is valid for as
// long, because STS ignores X-Amz-Expires (https://github.com/kubernetes-sigs/aws-iam-authenticator/pull/160).
const window = 15 * time.Minute

const dateFormat = "20060102T150405Z"

// Server serves GetCallerIdentity over HTTP. Its methods are safe for concurrent use.
type Server struct {
	identities []Identity

	mu       sync.Mutex
	ahead    time.Duration
	requests []Request
}

// Request is a handled request.
type Request struct {
	Host        string
	AccessKeyID string // empty if unreadable
	Presigned   bool   // signed in the URL, not in a header
	Code        string // of the error; empty for success
}

// New returns a server that knows the identities.
func New(identities ...Identity) *Server { return &Server{identities: identities} }

// SetClock sets the server's clock ahead of the local clock, or behind for a negative duration, so the local clock
// appears wrong.
func (s *Server) SetClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

// Requests returns all requests so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead).UTC()
}

// refusal is an error in STS's format.
type refusal struct {
	status        int
	code, message string
}

// ServeHTTP responds in JSON if that is accepted, as by aws-iam-authenticator, and in XML otherwise.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.now()
	record := Request{Host: r.Host}
	identity, refused := s.identify(r, now, &record)
	status, form := http.StatusOK, [2]string{
		`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Arn":%q,"UserId":%q,"Account":%q}}}`,
		`<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>%s</Arn><UserId>%s</UserId><Account>%s</Account>` +
			`</GetCallerIdentityResult></GetCallerIdentityResponse>`}
	values := []any{identity.ARN, identity.UserID, identity.account()}
	if refused != nil {
		status, record.Code = refused.status, refused.code
		form = [2]string{`{"Error":{"Type":"Sender","Code":%q,"Message":%q}}`,
			`<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`}
		values = []any{refused.code, refused.message}
	}
	// Record before the response, so that callers can rely on the record.
	s.mu.Lock()
	s.requests = append(s.requests, record)
	s.mu.Unlock()

	w.Header().Set("Date", now.Format(http.TimeFormat)) // SDKs use it to measure their clock skew
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, form[0], values...)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, form[1], values...)
}

var (
	authorization = regexp.MustCompile(
		`Credential=([^/]+)/[0-9]{8}/([^/]+)/sts/aws4_request, *SignedHeaders=([^,]+), *Signature=([0-9a-f]+)$`)
	endpoint = regexp.MustCompile(`^sts\.(([^.]+)\.)?amazonaws\.com`)
)

// identify finds the identity of a request and adds details to record.
func (s *Server) identify(r *http.Request, now time.Time, record *Request) (Identity, *refusal) {
	refuse := func(status int, code, format string, args ...any) (Identity, *refusal) {
		return Identity{}, &refusal{status, code, fmt.Sprintf(format, args...)}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return refuse(400, "MalformedInput", "the body could not be read: %v", err)
	}
	if !strings.Contains(r.URL.RawQuery+string(body), "Action=GetCallerIdentity&Version=2011-06-15") {
		return refuse(400, "InvalidAction", "only GetCallerIdentity is served")
	}
	query, signed := r.URL.Query(), r.Header.Get("Authorization")
	date, token := r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
	if record.Presigned = signed == ""; record.Presigned {
		signed = fmt.Sprintf("Credential=%s, SignedHeaders=%s, Signature=%s",
			query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature"))
		date, token = query.Get("X-Amz-Date"), query.Get("X-Amz-Security-Token")
	}
	parts := authorization.FindStringSubmatch(signed)
	at, err := time.Parse(dateFormat, date)
	if parts == nil || err != nil {
		return refuse(400, "IncompleteSignature", "not a signature of version 4 for sts: %s", signed)
	}
	record.AccessKeyID = parts[1]
	i := slices.IndexFunc(s.identities, func(i Identity) bool { return i.AccessKeyID == parts[1] })
	if i < 0 || s.identities[i].SessionToken != token {
		return refuse(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	}
	region, mismatch := parts[2], "SignatureDoesNotMatch"
	if of := endpoint.FindStringSubmatch(r.Host); of != nil && region != cmp.Or(of[2], "us-east-1") {
		return refuse(403, mismatch, "Credential should be scoped to a valid region.")
	}
	if first := now.Add(-window); at.Before(first) {
		return refuse(403, mismatch, "Signature expired: %s is now earlier than %s", date, first.Format(dateFormat))
	}
	if last := now.Add(window); at.After(last) {
		return refuse(403, mismatch, "Signature not yet current: %s is still later than %s", date,
			last.Format(dateFormat))
	}
	signature, err := sign(r, body, strings.Split(parts[3], ";"), s.identities[i], region, at)
	if err != nil || signature != parts[4] {
		return refuse(403, mismatch, "The request signature we calculated does not match the signature you provided.")
	}
	return s.identities[i], nil
}

// sign returns the signature that AWS's signer produces for the request with the identity's credentials.
func sign(r *http.Request, body []byte, headers []string, i Identity, region string, at time.Time) (string, error) {
	again, err := http.NewRequest(r.Method, "https://"+r.Host+r.URL.Path, nil)
	if err != nil {
		return "", err
	}
	for _, name := range headers {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	credentials := aws.Credentials{
		AccessKeyID: i.AccessKeyID, SecretAccessKey: i.SecretAccessKey, SessionToken: i.SessionToken}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if r.Header.Get("Authorization") != "" {
		err = v4.NewSigner().SignHTTP(r.Context(), credentials, again, hash, "sts", region, at)
		_, signature, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
		return signature, err
	}
	query := r.URL.Query()
	for _, name := range []string{"Algorithm", "Credential", "Date", "SignedHeaders", "Security-Token", "Signature"} {
		query.Del("X-Amz-" + name)
	}
	again.URL.RawQuery = query.Encode()
	presigned, _, err := v4.NewSigner().PresignHTTP(r.Context(), credentials, again, hash, "sts", region, at)
	_, signature, _ := strings.Cut(presigned, "X-Amz-Signature=")
	return signature, err
}

// Endpoint is a listening server on loopback.
type Endpoint struct {
	URL        string // plain HTTP, for AWS_ENDPOINT_URL_STS
	TLSAddress string // host:port, used in place of regional STS endpoints
	CA         []byte // PEM: the issuer of the certificate for those names

	server *http.Server
}

// Listen serves HTTP and HTTPS until Close.
func (s *Server) Listen() (*Endpoint, error) {
	names := []string{"sts.us-east-1.amazonaws.com", "sts.eu-west-1.amazonaws.com", "sts.eu-central-1.amazonaws.com"}
	pem, key, err := cert.GenerateSelfSignedCertKey("sts.amazonaws.com", nil, names)
	if err != nil {
		return nil, fmt.Errorf("making the certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(pem, key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	encrypted, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		plain.Close()
		return nil, err
	}
	// Ignore clients that disconnect during the handshake.
	e := &Endpoint{URL: "http://" + plain.Addr().String(), TLSAddress: encrypted.Addr().String(), CA: pem,
		server: &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}}
	go e.server.Serve(plain)
	go e.server.Serve(encrypted)
	return e, nil
}

// Close ends both listeners and their connections.
func (e *Endpoint) Close() error { return e.server.Close() }
