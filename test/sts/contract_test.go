package sts_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/test/sts"
)

const account, host, region = "111122223333", "sts.eu-central-1.amazonaws.com", "eu-central-1"

// TestSTS is the contract with those who take it for AWS's: the SDK, the AWS CLI, whose signer is another one, and
// whoever presigns a URL for aws-iam-authenticator to send.
func TestSTS(t *testing.T) {
	user, role := sts.User(account, "team/alice"), sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	wrong, stolen := role, role
	wrong.SecretAccessKey += "x"
	stolen.SessionToken = ""
	s := sts.New(user, role)
	e, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })

	// Each returns the ARN or the code of the error.
	sdk := func(i sts.Identity, try aws.Retryer) string {
		client := awssts.New(awssts.Options{BaseEndpoint: &e.URL, Region: region, Retryer: try,
			Credentials: credentials.NewStaticCredentialsProvider(i.AccessKeyID, i.SecretAccessKey, i.SessionToken)})
		out, err := client.GetCallerIdentity(t.Context(), nil)
		if refused, ok := errors.AsType[smithy.APIError](err); ok {
			return refused.ErrorCode()
		}
		if err != nil || *out.UserId != i.UserID || *out.Account != account {
			t.Errorf("%v: %v, %+v", i.ARN, err, out)
			return ""
		}
		return *out.Arn
	}
	cli := func(i sts.Identity) string {
		aws := exec.CommandContext(t.Context(), "aws", "sts", "get-caller-identity", "--endpoint-url", e.URL)
		aws.Env = append(aws.Environ(), "AWS_DEFAULT_REGION="+region, "AWS_ACCESS_KEY_ID="+i.AccessKeyID,
			"AWS_SECRET_ACCESS_KEY="+i.SecretAccessKey, "AWS_SESSION_TOKEN="+i.SessionToken)
		out, _ := aws.CombinedOutput()
		return string(out)
	}
	for _, c := range []struct {
		by   sts.Identity
		want string
	}{
		{user, user.ARN},
		{role, role.ARN},
		{sts.User(account, "mallory"), "InvalidClientTokenId"},
		{stolen, "InvalidClientTokenId"},
		{wrong, "SignatureDoesNotMatch"},
	} {
		if got := sdk(c.by, nil); got != c.want {
			t.Errorf("the SDK gets %s, want %s", got, c.want)
		}
		if got := cli(c.by); !strings.Contains(got, c.want) {
			t.Errorf("the AWS CLI says %s, want %s", got, c.want)
		}
	}

	// The SDK believes the Date of a refusal and tries once more: a wrong clock stays hidden unless that is switched off.
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		s.SetClock(ahead)
		if once, twice := sdk(role, aws.NopRetryer{}), sdk(role, nil); once != "SignatureDoesNotMatch" || twice != role.ARN {
			t.Errorf("%v ahead: %s at first, and then %s", ahead, once, twice)
		}
	}
	s.SetClock(0)
	first := sts.Request{Host: strings.TrimPrefix(e.URL, "http://"), AccessKeyID: user.AccessKeyID}
	if got := s.Requests()[0]; got != first {
		t.Errorf("recorded %+v, want %+v", got, first)
	}
	testPresigned(t, e, role, wrong)
	last := sts.Request{Host: host, AccessKeyID: role.AccessKeyID, Presigned: true, Code: "SignatureDoesNotMatch"}
	if got := s.Requests()[len(s.Requests())-1]; got != last {
		t.Errorf("recorded %+v, want %+v", got, last)
	}
}

func testPresigned(t *testing.T, e *sts.Endpoint, role, wrong sts.Identity) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.CA) {
		t.Fatal("no CA")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, e.TLSAddress)
	}
	defer transport.CloseIdleConnections()
	const calculated = "The request signature we calculated does not match"
	for _, c := range []struct {
		what          string
		by            sts.Identity
		age           time.Duration
		host, cluster string
		want          string
	}{
		{"a role's session", role, 0, host, "a", role.ARN},
		{"the global endpoint", role, 0, "sts.amazonaws.com", "a", "valid region"},
		{"14 minutes old", role, 14 * time.Minute, host, "a", role.ARN},
		{"14 minutes ahead", role, -14 * time.Minute, host, "a", role.ARN},
		{"16 minutes old", role, 16 * time.Minute, host, "a", "Signature expired: "},
		{"16 minutes ahead", role, -16 * time.Minute, host, "a", "Signature not yet current: "},
		{"another region's", role, 0, "sts.eu-west-1.amazonaws.com", "a", "valid region"},
		{"a wrong secret", wrong, 0, host, "a", calculated},
		{"for another cluster", role, 0, host, "b", calculated},
	} {
		const query = "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60"
		r, err := http.NewRequest(http.MethodGet, "https://"+c.host+"/?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-K8s-Aws-Id", "a")
		nothing := sha256.Sum256(nil)
		url, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: c.by.AccessKeyID,
			SecretAccessKey: c.by.SecretAccessKey, SessionToken: c.by.SessionToken},
			r, hex.EncodeToString(nothing[:]), "sts", region, time.Now().Add(-c.age))
		if err != nil {
			t.Fatal(err)
		}
		sent, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		sent.Header = http.Header{"X-K8s-Aws-Id": {c.cluster}, "Accept": {"application/json"}}
		res, err := transport.RoundTrip(sent)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || !json.Valid(body) || !strings.Contains(string(body), c.want) ||
			(res.StatusCode == 200) != (c.want == role.ARN) {
			t.Errorf("%s: %d %s, %v; want %s", c.what, res.StatusCode, body, err, c.want)
		}
	}
}
