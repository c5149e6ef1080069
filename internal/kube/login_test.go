package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/castai/kops-spot/internal/spot"
)

// accepting starts a server that accepts one token and counts the requests.
func accepting(t *testing.T, token string) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost && len(body) == 0 {
			http.Error(w, "the body is missing", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}))
	t.Cleanup(srv.Close)
	return srv, &asked
}

func clusterOf(t *testing.T, login *rest.Config) *Cluster {
	t.Helper()
	c, err := New(login)
	must(t, err)
	return c
}

// inTurn returns a source of the texts in turn, which repeats the last one.
func inTurn(texts ...string) (Source, *atomic.Int32) {
	var read atomic.Int32
	return func(context.Context) (string, error) {
		return texts[min(int(read.Add(1)), len(texts))-1], nil
	}, &read
}

func evict(c *Cluster, ctx context.Context) error {
	return c.Evict(ctx, spot.Pod{Namespace: "d", Name: "p", UID: "u"}, time.Second, false)
}

// TestRotatedToken: a request that is refused with an outdated token succeeds with the new one, including its body.
func TestRotatedToken(t *testing.T) {
	srv, asked := accepting(t, "new")
	source, read := inTurn("old\n", "new\n")
	login := WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, source, "")
	stored := login.Transport.(*gate).next.(*bearerTransport).tokens.(*storedToken)
	if _, err := stored.token(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	stored.readAt = time.Now().Add(-time.Hour) // it was valid for an hour
	c := clusterOf(t, login)
	for range 3 {
		must(t, evict(c, t.Context()))
	}
	if asked.Load() != 4 || read.Load() != 2 {
		t.Errorf("%d requests and %d reads of the token for three evictions and one rotation", asked.Load(),
			read.Load())
	}
}

// TestRejectedToken is not read repeatedly.
func TestRejectedToken(t *testing.T) {
	srv, asked := accepting(t, "another")
	source, read := inTurn("very-secret")
	c := clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, source, ""))
	for range 3 {
		if _, err := c.NodeNamed(t.Context(), "n"); !errors.Is(err, spot.ErrPermanent) ||
			strings.Contains(err.Error(), "very-secret") {
			t.Fatalf("got %v", err)
		}
	}
	if asked.Load() != 3 || read.Load() != 1 {
		t.Errorf("%d requests and %d reads of the token", asked.Load(), read.Load())
	}
}

func TestInvalidTokens(t *testing.T) {
	srv, asked := accepting(t, "x")
	for name, source := range map[string]Source{
		"empty": text(" \n"),
		"two":   text("a b"),
		"unreadable": func(context.Context) (string, error) {
			return "", spot.Permanent(errors.New("reading secret s: denied"))
		},
	} {
		c := clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, source, ""))
		if _, err := c.NodeNamed(t.Context(), "n"); !errors.Is(err, spot.ErrPermanent) ||
			!strings.Contains(err.Error(), "reading the API token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked.Load() != 0 {
		t.Error("the server got a request without a token")
	}
}

func TestExpiredToken(t *testing.T) {
	srv, _ := accepting(t, "x")
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1767225600}`))
	c := clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, text("h."+claims+".s"), ""))
	if _, err := c.NodeNamed(t.Context(), "n"); err == nil ||
		!strings.Contains(err.Error(), "the token expired on Thu, 01 Jan 2026 00:00:00 UTC") {
		t.Errorf("got %v", err)
	}
}

// TestRotatedCA: a connection that fails with an outdated bundle succeeds with the new one.
func TestRotatedCA(t *testing.T) {
	srv, _ := accepting(t, "t")
	old, _, err := cert.GenerateSelfSignedCertKey("old", nil, nil)
	must(t, err)
	source, read := inTurn(string(old), pemOf(srv))
	c := clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: source}, text("t"), ""))
	for range 3 {
		must(t, evict(c, t.Context()))
	}
	if read.Load() != 2 {
		t.Errorf("the bundle was read %d times", read.Load())
	}

	source, read = inTurn(string(old))
	c = clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: source}, text("t"), ""))
	if err := evict(c, t.Context()); err == nil || !errors.Is(err, spot.ErrPermanent) || read.Load() != 2 {
		t.Errorf("got %v after %d reads", err, read.Load())
	}
	c = clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: text("nothing")}, text("t"), ""))
	if err := evict(c, t.Context()); err == nil || !errors.Is(err, spot.ErrPermanent) ||
		!strings.Contains(err.Error(), "the CA bundle contains no certificate") {
		t.Errorf("got %v", err)
	}
}

// TestServerName: the certificate must have the host's name or the internal one. The server's certificate is valid for
// 127.0.0.1 and example.com, but not for localhost.
func TestServerName(t *testing.T) {
	srv, _ := accepting(t, "t")
	old, _, err := cert.GenerateSelfSignedCertKey("old", nil, nil)
	must(t, err)
	for _, c := range []struct {
		host, internal string
		good           bool
	}{
		{"127.0.0.1", "", true},
		{"127.0.0.1", "api.internal.prod.example.org", true},
		{"localhost", "example.com", true},
		{"localhost", "", false},
		{"localhost", "api.internal.prod.example.org", false},
	} {
		bundle, _ := inTurn(string(old), pemOf(srv)) // the CA was replaced, too
		k := clusterOf(t, WithToken(Endpoint{Server: strings.Replace(srv.URL, "127.0.0.1", c.host, 1), CA: bundle,
			InternalName: c.internal}, text("t"), ""))
		for range 2 {
			if err := evict(k, t.Context()); (err == nil) != c.good || !c.good && !errors.Is(err, spot.ErrPermanent) {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

func iamOf(id aws.Credentials, whoAmI func(context.Context) (string, error)) IAM {
	return IAM{ClusterID: "prod.example.com", Region: "eu-west-1", WhoAmI: whoAmI,
		Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, id.SessionToken)}
}

var lambdaRole = aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "very-secret-key",
	SessionToken: "a-session-token"}

// TestIAMToken has the form that aws-iam-authenticator expects, whatever endpoint the environment sets for AWS.
func TestIAMToken(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	for region, host := range map[string]string{"eu-west-1": "sts.eu-west-1.amazonaws.com",
		"us-east-1": "sts.us-east-1.amazonaws.com", "cn-north-1": "sts.cn-north-1.amazonaws.com.cn"} {
		identity := iamOf(lambdaRole, nil)
		identity.Region = region
		token, err := (&iamToken{IAM: identity}).token(t.Context(), "")
		must(t, err)
		encoded, ok := strings.CutPrefix(token, "k8s-aws-v1.")
		raw, err := base64.RawURLEncoding.DecodeString(encoded)
		if !ok || err != nil {
			t.Fatalf("%s: %v", token, err)
		}
		u, err := url.Parse(string(raw))
		must(t, err)
		q := u.Query()
		if u.Scheme != "https" || u.Host != host || u.Path != "/" || q.Get("Action") != "GetCallerIdentity" ||
			q.Get("X-Amz-Expires") != "900" ||
			q.Get("X-Amz-SignedHeaders") != "host;x-k8s-aws-id" || q.Get("X-Amz-Security-Token") != "a-session-token" {
			t.Errorf("%s: %s", region, u)
		}
		if strings.Contains(string(raw), "very-secret-key") {
			t.Error("the secret key is in the token")
		}
	}
}

func TestIAMTokenIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := &iamToken{IAM: iamOf(lambdaRole, nil)}
		get := func(rejected string) string {
			t.Helper()
			token, err := tokens.token(t.Context(), rejected)
			must(t, err)
			return token
		}
		first := get("")
		time.Sleep(9 * time.Minute)
		if get("") != first {
			t.Error("a token was renewed long before it expires")
		}
		time.Sleep(2 * time.Minute)
		second := get("")
		if second == first {
			t.Error("an 11-minute-old token was reused: it expires after 15")
		}
		if get(second) != second {
			t.Error("a rejected token was renewed just after it was created")
		}
		time.Sleep(2 * time.Minute)
		if get(second) == second {
			t.Error("a rejected token was not renewed: the credentials may have changed")
		}
	})
}

func TestIAMTokenTooLong(t *testing.T) {
	long := lambdaRole
	long.SessionToken = strings.Repeat("x", 3000)
	c := clusterOf(t, WithIAM(Endpoint{Server: "https://127.0.0.1:1"}, iamOf(long, nil), ""))
	if _, err := c.NodeNamed(t.Context(), "n"); !errors.Is(err, spot.ErrPermanent) ||
		!strings.Contains(err.Error(), "the authenticator's limit of 4096") || strings.Contains(err.Error(), "xxxx") {
		t.Errorf("got %v", err)
	}
}

// TestUnauthorizedReasons: the API server sends the same response for a wrong key, an unmapped role, a wrong cluster ID
// and a wrong clock. The client then asks AWS once, and only after a refusal.
func TestUnauthorizedReasons(t *testing.T) {
	const session = "arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/cast-spot-handler"
	for _, c := range []struct {
		name  string
		date  time.Duration // how far the server's clock is ahead
		arn   string
		err   error
		want  []string
		asked int32
	}{
		{name: "the local clock is ahead", date: -20 * time.Minute,
			want: []string{"the local clock is 20m0s ahead of the API server's"}},
		{name: "the local clock is behind", date: 20 * time.Minute,
			want: []string{"the local clock is 20m0s behind the API server's"}},
		{name: "the key is unknown to AWS",
			err: fmt.Errorf("getting the caller identity: %w: InvalidClientTokenId", spot.ErrPermanent), asked: 1,
			want: []string{"AWS rejects it, too", "InvalidClientTokenId"}},
		{name: "AWS cannot be asked", err: errors.New("connection refused"), asked: 1,
			want: []string{`cluster ID "prod.example.com"`, "connection refused"}},
		{name: "the cluster does not know it", arn: session, asked: 1,
			want: []string{session, `cluster ID "prod.example.com"`, "does not know one of the two",
				"map arn:aws:iam::123456789012:role/CastLambdaRoleForSpot", "KOPS_SPOT_LOGIN=iam:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(c.date).UTC().Format(http.TimeFormat))
				http.Error(w, "Unauthorized", http.StatusUnauthorized)
			}))
			defer srv.Close()
			var asked atomic.Int32
			cluster := clusterOf(t, WithIAM(Endpoint{Server: srv.URL, CA: text(pemOf(srv))},
				iamOf(lambdaRole, func(context.Context) (string, error) {
					asked.Add(1)
					return c.arn, c.err
				}), ""))
			for range 2 {
				_, err := cluster.NodeNamed(t.Context(), "n")
				if !errors.Is(err, spot.ErrPermanent) || !strings.Contains(err.Error(), "(401)") {
					t.Fatalf("got %v", err)
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
				if strings.Contains(err.Error(), "very-secret-key") ||
					strings.Contains(err.Error(), "a-session-token") {
					t.Error("a secret is in the error")
				}
			}
			if asked.Load() != c.asked {
				t.Errorf("AWS got %d requests, want %d", asked.Load(), c.asked)
			}
		})
	}
}

func TestMappableARN(t *testing.T) {
	for arn, want := range map[string]string{
		"arn:aws:sts::1:assumed-role/R/s":            "arn:aws:iam::1:role/R",
		"arn:aws-cn:sts::1:assumed-role/R/s":         "arn:aws-cn:iam::1:role/R",
		"arn:aws:iam::1:user/cast/cast-kops-prod":    "arn:aws:iam::1:user/cast/cast-kops-prod",
		"arn:aws:sts::1:federated-user/me":           "arn:aws:sts::1:federated-user/me",
		"arn:aws:sts::1:assumed-role/R/with:colon/x": "arn:aws:iam::1:role/R",
	} {
		if got := mappable(arn); got != want {
			t.Errorf("%s: got %s, want %s", arn, got, want)
		}
	}
}
