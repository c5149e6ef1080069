package testenv_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/test/sts"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	clusterID     = "spot.example.com"
	awsAccount    = "111122223333"
	handlerRole   = "arn:aws:iam::" + awsAccount + ":role/CastLambdaRoleForSpot"
	handlerGroup  = "cast:spot-handler"
	handlerLogin  = "kops-spot"
	authenticated = "system:authenticated"
)

// login is a control plane whose users log in through the authenticator, and who may try.
type login struct {
	cp       *testenv.ControlPlane
	auth     *testenv.Authenticator
	handler  sts.Identity // of the role that is mapped
	stranger sts.Identity // of one that is not
	alice    sts.Identity // a user
	tokens   int
}

// TestAuthenticator logs in as kOps' users do. Its parts share one control plane and come in this order: each leaves the
// authenticator in its own mode.
func TestAuthenticator(t *testing.T) {
	l := &login{
		handler:  sts.RoleSession(awsAccount, "CastLambdaRoleForSpot", "kops-spot"),
		stranger: sts.RoleSession(awsAccount, "SomeOtherRole", "kops-spot"),
		alice:    sts.User(awsAccount, "alice"),
	}
	var err error
	l.cp, l.auth, err = testenv.StartWithAuthenticator(t.Context(), testenv.Options{Log: t.Output()}, testenv.AuthenticatorOptions{
		ClusterID:  clusterID,
		Mappings:   []testenv.Mapping{{ARN: handlerRole, Username: handlerLogin, Groups: []string{handlerGroup}}},
		Identities: []sts.Identity{l.handler, l.stranger, l.alice},
		Log:        t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, err := l.auth.Log()
			t.Log(text, err)
		}
		if err := errors.Join(l.cp.Stop(), l.auth.Stop()); err != nil {
			t.Error(err)
		}
	})
	if err := l.cp.Apply(t.Context(), deploy.RBAC); err != nil {
		t.Fatal(err)
	}
	t.Run("Admitted", l.testAdmitted)
	t.Run("Refused", l.testRefused)
	t.Run("Loopback", l.testLoopback)
	t.Run("EKSConfigMap", l.testEKSConfigMap)
	t.Run("CRD", l.testCRD)
}

// TestAuthenticatorCannotStart says why.
func TestAuthenticatorCannotStart(t *testing.T) {
	for mode, want := range map[string]string{
		"EKSConfigmap":             `mode "EKSConfigmap" is none of MountedFile, EKSConfigMap and CRD`,
		"CRD":                      "mode CRD reads mappings from a cluster: no kubeconfig given",
		"MountedFile,EKSConfigMap": "mode EKSConfigMap reads mappings from a cluster: no kubeconfig given",
	} {
		opts := testenv.AuthenticatorOptions{ClusterID: clusterID, Mode: mode, Log: t.Output()}
		if _, err := testenv.StartAuthenticator(t.Context(), opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", mode, err, want)
		}
	}
}

// testAdmitted is allowed what deploy/rbac.yaml allows.
func (l *login) testAdmitted(t *testing.T) {
	client := l.client(t, l.token(l.handler))
	l.eventually(t, "the handler may list nodes", func() error {
		_, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		return err
	})
	if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing secrets: %v; want it forbidden", err)
	}
	user, err := l.whoami(t, l.token(l.handler))
	if err != nil {
		t.Fatal(err)
	}
	if user.Username != handlerLogin || !slices.Equal(user.Groups, []string{handlerGroup, authenticated}) {
		t.Errorf("logged in as %s in %q; want %s in %s", user.Username, user.Groups, handlerLogin, handlerGroup)
	}
	requests := l.auth.STS().Requests()
	if len(requests) == 0 {
		t.Fatal("STS was not asked")
	}
	for _, r := range requests {
		if r.Host != tokenHost || !r.Presigned || r.AccessKeyID != l.handler.AccessKeyID || r.Code != "" {
			t.Errorf("STS was asked %+v", r)
		}
	}
}

// testRefused is told nothing but 401, whatever is wrong. The reason is in the authenticator's log alone.
func (l *login) testRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		token  func() token
		clock  time.Duration // of STS
		reason string
	}{
		{name: "wrong secret", token: func() token {
			k := l.token(l.handler)
			k.identity.SecretAccessKey += "x"
			return k
		}, reason: "The request signature we calculated does not match"},
		{name: "wrong cluster ID", token: func() token {
			k := l.token(l.handler)
			k.clusterID = "other.example.com"
			return k
		}, reason: "The request signature we calculated does not match"},
		{name: "unknown key", token: func() token { return l.token(sts.User(awsAccount, "mallory")) }, reason: "InvalidClientTokenId"},
		{name: "unmapped role", token: func() token { return l.token(l.stranger) }, reason: "Identity is not mapped"},
		{name: "unmapped user", token: func() token { return l.token(l.alice) }, reason: "Identity is not mapped"},
		{name: "dated 20 minutes ago", token: func() token {
			k := l.token(l.handler)
			k.at = k.at.Add(-20 * time.Minute)
			return k
		}, reason: "X-Amz-Date parameter is expired"},
		{name: "dated in 20 minutes", token: func() token {
			k := l.token(l.handler)
			k.at = k.at.Add(20 * time.Minute)
			return k
		}, reason: "Signature not yet current"},
		{name: "slow to STS alone", token: func() token { return l.token(l.handler) }, clock: 20 * time.Minute, reason: "Signature expired"},
		{name: "no X-Amz-Expires", token: func() token {
			k := l.token(l.handler)
			k.expires = 0
			return k
		}, reason: "invalid X-Amz-Expires"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.auth.STS().SetClock(c.clock)
			defer l.auth.STS().SetClock(0)
			before, err := l.auth.Log()
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.whoami(t, c.token())
			if e, ok := errors.AsType[*apierrors.StatusError](err); !ok || e.ErrStatus.Code != 401 || e.ErrStatus.Message != "Unauthorized" {
				t.Errorf("%v; want a bare 401", err)
			}
			// It answers before it writes why.
			said := ""
			for end := time.Now().Add(10 * time.Second); !strings.Contains(said, c.reason); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the authenticator said %q; want %q", said, c.reason)
				}
				after, err := l.auth.Log()
				if err != nil {
					t.Fatal(err)
				}
				said = after[len(before):]
			}
		})
	}
}

// testLoopback finds nothing of the authenticator where others could, and starts a second one beside it.
func (l *login) testLoopback(t *testing.T) {
	second, err := testenv.StartAuthenticator(t.Context(), testenv.AuthenticatorOptions{ClusterID: "other.example.com", Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.IsLinkLocalUnicast() {
			continue
		}
		health := net.JoinHostPort(ip.IP.String(), "21363")
		if conn, err := net.DialTimeout("tcp", health, time.Second); err == nil {
			conn.Close()
			t.Errorf("something listens on %s", health)
		}
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
}

// testEKSConfigMap changes who is who in aws-auth while the authenticator runs.
func (l *login) testEKSConfigMap(t *testing.T) {
	err := l.auth.Restart(t.Context(), func(o *testenv.AuthenticatorOptions) {
		o.Mode, o.Kubeconfig = testenv.EKSConfigMap, l.cp.Kubeconfig()
	})
	if err != nil {
		t.Fatal(err)
	}
	l.becomes(t, l.handler, "")
	maps := l.cp.Client().CoreV1().ConfigMaps("kube-system")
	data := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "aws-auth"}, Data: map[string]string{
		"mapRoles": "- rolearn: " + handlerRole + "\n  username: lambda:{{SessionName}}\n  groups: [" + handlerGroup + "]\n",
	}}
	if _, err := maps.Create(t.Context(), data, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.becomes(t, l.handler, "lambda:kops-spot", handlerGroup)
	l.becomes(t, l.alice, "")

	data.Data = map[string]string{"mapUsers": "- userarn: " + l.alice.ARN + "\n  username: alice\n  groups: [team]\n"}
	if _, err := maps.Update(t.Context(), data, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.becomes(t, l.alice, "alice", "team")
	l.becomes(t, l.handler, "")
}

// testCRD changes who is who by objects while the authenticator runs.
func (l *login) testCRD(t *testing.T) {
	if err := l.cp.Apply(t.Context(), []byte(testenv.MappingsCRD)); err != nil {
		t.Fatal(err)
	}
	if err := l.auth.Restart(t.Context(), func(o *testenv.AuthenticatorOptions) { o.Mode = testenv.CRD }); err != nil {
		t.Fatal(err)
	}
	l.becomes(t, l.alice, "")
	mapping := func(username string) []byte {
		return fmt.Appendf(nil, mappingObject, handlerRole, username, handlerGroup)
	}
	l.eventually(t, "the mapping is created", func() error { return l.cp.Apply(t.Context(), mapping("one")) })
	l.becomes(t, l.handler, "one", handlerGroup)
	if err := l.cp.Apply(t.Context(), mapping("two")); err != nil {
		t.Fatal(err)
	}
	l.becomes(t, l.handler, "two", handlerGroup)
}

const mappingObject = `
apiVersion: iamauthenticator.k8s.aws/v1alpha1
kind: IAMIdentityMapping
metadata: {name: cast-spot-handler}
spec: {arn: %q, username: %q, groups: [%q]}
`

// becomes waits until the identity logs in as the user in the groups, or is refused if username is empty.
func (l *login) becomes(t *testing.T, i sts.Identity, username string, groups ...string) {
	t.Helper()
	l.eventually(t, fmt.Sprintf("%s becomes %q", i.ARN, username), func() error {
		user, err := l.whoami(t, l.token(i))
		if username == "" && apierrors.IsUnauthorized(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if want := append(slices.Clone(groups), authenticated); user.Username != username || !slices.Equal(user.Groups, want) {
			return fmt.Errorf("logged in as %s in %q", user.Username, user.Groups)
		}
		return nil
	})
}

func (l *login) whoami(t *testing.T, k token) (authenticationv1.UserInfo, error) {
	review, err := l.client(t, k).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return review.Status.UserInfo, nil
}

func (l *login) client(t *testing.T, k token) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(l.cp.TokenConfig(k.mint(t)))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (l *login) eventually(t *testing.T, what string, so func() error) {
	t.Helper()
	begin := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		last = so()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v; last: %v", what, err, last)
	}
	t.Logf("%s: after %v", what, time.Since(begin).Round(time.Millisecond))
}

const tokenHost, tokenRegion = "sts.eu-central-1.amazonaws.com", "eu-central-1"

// token is what a bearer token for the authenticator is made of.
type token struct {
	identity  sts.Identity
	clusterID string
	at        time.Time
	expires   int // seconds
}

// token returns one like no other before: the API server remembers for two minutes whom it let in with a token, and
// those of one second would be the same.
func (l *login) token(i sts.Identity) token {
	l.tokens++
	return token{identity: i, clusterID: clusterID, at: time.Now(), expires: 1 + l.tokens%900}
}

// mint presigns GetCallerIdentity for the cluster, and nothing is asked for it.
func (k token) mint(t *testing.T) string {
	t.Helper()
	url := "https://" + tokenHost + "/?Action=GetCallerIdentity&Version=2011-06-15"
	if k.expires != 0 {
		url += fmt.Sprintf("&X-Amz-Expires=%d", k.expires)
	}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-K8s-Aws-Id", k.clusterID)
	nothing := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{
		AccessKeyID: k.identity.AccessKeyID, SecretAccessKey: k.identity.SecretAccessKey, SessionToken: k.identity.SessionToken,
	}, r, hex.EncodeToString(nothing[:]), "sts", tokenRegion, k.at)
	if err != nil {
		t.Fatal(err)
	}
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(signed))
}
