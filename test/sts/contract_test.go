package sts_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/castai/kops-spot/test/sts"
)

const account, host, region = "111122223333", "sts.eu-central-1.amazonaws.com", "eu-central-1"

// TestContract is with those who take it for AWS's: the SDK, and whoever presigns a URL for aws-iam-authenticator to send.
func TestContract(t *testing.T) {
	user, role := sts.User(account, "alice"), sts.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	wrong, stolen := role, role
	wrong.SecretAccessKey += "x"
	stolen.SessionToken = ""
	s := sts.New(user, role)
	e, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	sdk := func(i sts.Identity, try aws.Retryer, want string) {
		t.Helper()
		client := awssts.New(awssts.Options{BaseEndpoint: &e.URL, Region: region, Retryer: try,
			Credentials: credentials.NewStaticCredentialsProvider(i.AccessKeyID, i.SecretAccessKey, i.SessionToken)})
		out, err := client.GetCallerIdentity(t.Context(), nil)
		switch {
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %s", i.ARN, err, want)
		case err == nil && (*out.Arn != want || *out.UserId != i.UserID || *out.Account != account):
			t.Errorf("%s: %+v, want %s", i.ARN, out, want)
		}
	}
	sdk(user, nil, user.ARN)
	sdk(role, nil, role.ARN)
	sdk(sts.User(account, "mallory"), nil, "InvalidClientTokenId")
	sdk(stolen, nil, "InvalidClientTokenId")
	sdk(wrong, nil, "SignatureDoesNotMatch")
	// The SDK believes the Date of a refusal and tries once more: a wrong clock stays hidden unless that is switched off.
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		s.SetClock(ahead)
		sdk(role, aws.NopRetryer{}, "SignatureDoesNotMatch")
		sdk(role, nil, role.ARN)
	}
	s.SetClock(0)

	const calculated = "The request signature we calculated does not match"
	for _, c := range []struct {
		what          string
		by            sts.Identity
		age           time.Duration
		host, cluster string
		want          string
	}{
		{"a role's session", role, 0, host, "a", role.ARN},
		{"14 minutes old", role, 14 * time.Minute, host, "a", role.ARN},
		{"14 minutes ahead", role, -14 * time.Minute, host, "a", role.ARN},
		{"16 minutes old", role, 16 * time.Minute, host, "a", "Signature expired: "},
		{"16 minutes ahead", role, -16 * time.Minute, host, "a", "Signature not yet current: "},
		{"another region's", role, 0, "sts.eu-west-1.amazonaws.com", "a", "valid region"},
		{"a wrong secret", wrong, 0, host, "a", calculated},
		{"for another cluster", role, 0, host, "b", calculated},
	} {
		status, body := presigned(t, e, c.by, c.age, c.host, c.cluster)
		if !strings.Contains(body, c.want) || (status == 200) != (c.want == role.ARN) {
			t.Errorf("%s: %d %s; want %s", c.what, status, body, c.want)
		}
	}
	last := sts.Request{Host: host, AccessKeyID: role.AccessKeyID, Presigned: true, Code: "SignatureDoesNotMatch"}
	if all := s.Requests(); len(all) != 5+2*3+8 || all[len(all)-1] != last {
		t.Errorf("recorded %+v, the last of 19 should be %+v", all, last)
	}
}

// presigned sends a URL that was presigned for the cluster "a", as aws-iam-authenticator does for the cluster it is of.
func presigned(t *testing.T, e *sts.Endpoint, by sts.Identity, age time.Duration, host, cluster string) (int, string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := http.NewRequest(http.MethodGet, "https://"+host+"/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", nil)
	must(err)
	r.Header.Set("X-K8s-Aws-Id", "a")
	nothing := sha256.Sum256(nil)
	url, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: by.AccessKeyID,
		SecretAccessKey: by.SecretAccessKey, SessionToken: by.SessionToken},
		r, hex.EncodeToString(nothing[:]), "sts", region, time.Now().Add(-age))
	must(err)
	sent, err := http.NewRequest(http.MethodGet, url, nil)
	must(err)
	sent.Header = http.Header{"X-K8s-Aws-Id": {cluster}, "Accept": {"application/json"}}

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.CA) {
		t.Fatal("no CA")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, e.TLSAddress)
	}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(sent)
	must(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(err)
	if !json.Valid(body) {
		t.Errorf("%s is no JSON", body)
	}
	return res.StatusCode, string(body)
}
