package sts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/test/sts"
)

func listen(t *testing.T, s *sts.Server) *sts.Endpoint {
	t.Helper()
	e, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func client(e *sts.Endpoint, i sts.Identity) *awssts.Client {
	return awssts.New(awssts.Options{
		BaseEndpoint: &e.URL,
		Region:       region,
		Credentials:  credentials.NewStaticCredentialsProvider(i.AccessKeyID, i.SecretAccessKey, i.SessionToken),
	})
}

// TestSDK asks with the SDK that the handler uses.
func TestSDK(t *testing.T) {
	user, role := sts.User(account, "team/alice"), sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	s := sts.New(user)
	s.Add(role)
	e := listen(t, s)
	for _, i := range []sts.Identity{user, role} {
		out, err := client(e, i).GetCallerIdentity(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if *out.Arn != i.ARN || *out.UserId != i.UserID || *out.Account != account {
			t.Errorf("got %s %s %s; want %s %s %s", *out.Arn, *out.UserId, *out.Account, i.ARN, i.UserID, account)
		}
	}
	stranger := sts.User(account, "mallory")
	_, err := client(e, stranger).GetCallerIdentity(t.Context(), nil)
	if code(err) != "InvalidClientTokenId" {
		t.Errorf("a stranger: %v", err)
	}
	var got []string
	for _, r := range s.Requests() {
		if r.Presigned || "http://"+r.Host != e.URL || !strings.HasPrefix(r.UserAgent, "aws-sdk-go-v2/") {
			t.Errorf("recorded %+v", r)
		}
		got = append(got, r.AccessKeyID+" "+r.Code)
	}
	if want := []string{user.AccessKeyID + " ", role.AccessKeyID + " ", stranger.AccessKeyID + " InvalidClientTokenId"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q; want %q", got, want)
	}
}

// TestClock has a caller whose clock is wrong. The SDK believes the Date of the refusal and tries once more: a wrong
// clock stays hidden unless that is switched off.
func TestClock(t *testing.T) {
	role := sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	s := sts.New(role)
	e := listen(t, s)
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		s.SetClock(ahead)
		before := len(s.Requests())
		_, err := client(e, role).GetCallerIdentity(t.Context(), nil, func(o *awssts.Options) { o.Retryer = aws.NopRetryer{} })
		if code(err) != "SignatureDoesNotMatch" {
			t.Errorf("%v ahead, without another try: %v", ahead, err)
		}
		if _, err := client(e, role).GetCallerIdentity(t.Context(), nil); err != nil {
			t.Errorf("%v ahead, with another try: %v", ahead, err)
		}
		if n := len(s.Requests()) - before; n != 3 {
			t.Errorf("%v ahead: %d requests; want 1 without another try and 2 with", ahead, n)
		}
	}
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// TestTLS asks as aws-iam-authenticator does: a presigned URL, under the names of STS, for JSON.
func TestTLS(t *testing.T) {
	role := sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	e := listen(t, sts.New(role))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.CA) {
		t.Fatal("no CA")
	}
	get := func(c call) (*http.Response, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, e.TLSAddress)
		}
		defer transport.CloseIdleConnections()
		r := c.presigned(t)
		r.Header.Set("Accept", "application/json")
		return transport.RoundTrip(r)
	}
	read := func(c call, status int, into any) {
		t.Helper()
		response, err := get(c)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, into); err != nil || response.StatusCode != status {
			t.Fatalf("%d %s: %v; want %d", response.StatusCode, body, err, status)
		}
	}
	for _, at := range [][2]string{{"sts.amazonaws.com", "us-east-1"}, {host, region}} {
		c := newCall(role)
		c.host, c.region = at[0], at[1]
		var answer struct {
			GetCallerIdentityResponse struct {
				GetCallerIdentityResult struct{ Account, Arn, UserID string }
				ResponseMetadata        struct{ RequestID string }
			}
		}
		read(c, http.StatusOK, &answer)
		got := answer.GetCallerIdentityResponse
		if r := got.GetCallerIdentityResult; r.Arn != role.ARN || r.UserID != role.UserID || r.Account != account || got.ResponseMetadata.RequestID == "" {
			t.Errorf("%s: %+v", at[0], got)
		}
	}
	c := newCall(role)
	c.identity.SecretAccessKey = "another"
	var refused struct {
		Error     struct{ Code, Message, Type string }
		RequestID string
	}
	read(c, http.StatusForbidden, &refused)
	if refused.Error.Code != "SignatureDoesNotMatch" || refused.Error.Type != "Sender" || refused.Error.Message == "" || refused.RequestID == "" {
		t.Errorf("%+v", refused)
	}
	c.host = "ec2.eu-central-1.amazonaws.com"
	if response, err := get(c); err == nil {
		response.Body.Close()
		t.Error("it has a certificate for EC2")
	}
}
