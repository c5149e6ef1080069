package testenv_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	fakests "github.com/castai/kops-spot/test/fakes/sts"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	clusterID    = "spot.example.com"
	awsAccount   = "111122223333"
	handlerRole  = "arn:aws:iam::" + awsAccount + ":role/CastLambdaRoleForSpot"
	handlerGroup = "cast:spot-handler"
	tokenHost    = "sts.eu-central-1.amazonaws.com"
	namespace    = "contract"
)

// world is a control plane whose users authenticate through the authenticator, and two identities.
type world struct {
	*testing.T
	cp       *testenv.ControlPlane
	auth     *testenv.Authenticator
	log      string           // the authenticator's
	handler  fakests.Identity // of the mapped role
	stranger fakests.Identity // of an unmapped role
	tokens   int
}

// TestContract proves what all other tests on the control plane rely on, with the authenticator's own server. Its parts
// share one control plane.
func TestContract(t *testing.T) {
	dir := t.TempDir()
	w := &world{log: filepath.Join(dir, "authenticator.log"),
		handler:  fakests.RoleSession(awsAccount, "CastLambdaRoleForSpot", "kops-spot"),
		stranger: fakests.RoleSession(awsAccount, "SomeOtherRole", "kops-spot")}
	var err error
	w.cp, w.auth, err = testenv.StartWithAuthenticator(t.Context(), testenv.Options{Log: t.Output()},
		testenv.AuthenticatorOptions{ClusterID: clusterID, Dir: dir, Log: t.Output(),
			Mappings:   []testenv.Mapping{{ARN: handlerRole, Username: "kops-spot", Groups: []string{handlerGroup}}},
			Identities: []fakests.Identity{w.handler, w.stranger}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // fails if one of them had to be killed
		if err := errors.Join(w.cp.Stop(), w.auth.Stop()); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(w.cp.CreateNodes(t.Context(), testenv.SpotNodes(1)...),
		w.cp.CreateNamespace(t.Context(), namespace)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*world){
		"Version": (*world).testVersion, "LogIn": (*world).testAuthentication, "AuditLog": (*world).testAuditLog,
		"Kubelet": (*world).testKubelet, "Shutdown": (*world).testShutdown,
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			test(w)
		})
	}
}

func (w *world) testVersion() {
	mod, err := os.ReadFile("../go.mod")
	w.must(err)
	required := regexp.MustCompile(`k8s\.io/kubernetes (v\S+)`).FindSubmatch(mod)
	version, err := w.cp.Client().Discovery().ServerVersion()
	w.must(err)
	if got := version.GitVersion; got != testenv.KubernetesVersion || got != string(required[1]) {
		w.Errorf("the server reports version %s; go.mod requires %s", got, required[1])
	}
}

// testAuthentication: mapped identities authenticate with a token for this cluster. All others get a bare 401, and only
// the authenticator's log has the reason.
func (w *world) testAuthentication() {
	const mismatch = "The request signature we calculated does not match"
	for _, c := range []struct {
		name   string
		change func(*token)
		clock  time.Duration // of STS
		reason string        // empty if accepted
	}{
		{name: "the handler"},
		{name: "dated 14 minutes ago", change: func(k *token) { k.at = k.at.Add(-14 * time.Minute) }},
		{name: "dated in 14 minutes", change: func(k *token) { k.at = k.at.Add(14 * time.Minute) }},
		{name: "wrong secret", change: func(k *token) { k.identity.SecretAccessKey += "x" }, reason: mismatch},
		{name: "wrong cluster ID", change: func(k *token) { k.clusterID = "other.example.com" }, reason: mismatch},
		{name: "unknown key", change: func(k *token) { k.identity = fakests.User(awsAccount, "mallory") },
			reason: "InvalidClientTokenId"},
		{name: "unmapped role", change: func(k *token) { k.identity = w.stranger }, reason: "Identity is not mapped"},
		{name: "dated 20 minutes ago", change: func(k *token) { k.at = k.at.Add(-20 * time.Minute) },
			reason: "X-Amz-Date parameter is expired"},
		{name: "dated in 20 minutes", change: func(k *token) { k.at = k.at.Add(20 * time.Minute) },
			reason: "Signature not yet current"},
		{name: "signed for another region", change: func(k *token) { k.host = "sts.eu-west-1.amazonaws.com" },
			reason: "valid region"},
		{name: "slow to STS alone", clock: 20 * time.Minute, reason: "Signature expired"},
	} {
		w.auth.STS().SetClock(c.clock)
		before := w.said()
		w.tokens++ // unique: the API server caches tokens for two minutes
		k := token{identity: w.handler, clusterID: clusterID, host: tokenHost, at: time.Now(), expires: w.tokens}
		if c.change != nil {
			c.change(&k)
		}
		review, err := w.client(k.mint(w.T)).AuthenticationV1().SelfSubjectReviews().
			Create(w.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if c.reason == "" {
			if user := review.Status.UserInfo; err != nil || user.Username != "kops-spot" ||
				!slices.Equal(user.Groups, []string{handlerGroup, "system:authenticated"}) {
				w.Errorf("%s: logged in as %+v, %v", c.name, user, err)
			}
			continue
		}
		if e, ok := errors.AsType[*apierrors.StatusError](err); !ok || e.ErrStatus.Code != 401 ||
			e.ErrStatus.Message != "Unauthorized" {
			w.Errorf("%s: %v; want a bare 401", c.name, err)
		}
		w.eventually(c.name+": the authenticator says "+c.reason,
			func() bool { return strings.Contains(w.said()[len(before):], c.reason) })
	}
	w.auth.STS().SetClock(0)
	asked := w.auth.STS().Requests()
	if want := (fakests.Request{Host: tokenHost, AccessKeyID: w.handler.AccessKeyID,
		Presigned: true}); len(asked) == 0 || asked[0] != want {
		w.Errorf("STS got %+v, first %+v", asked, want)
	}
}

// testAuditLog: the log has every request of a user and whether it was denied. The tests of the permissions rely on it.
func (w *world) testAuditLog() {
	const name = "drainer"
	accounts, roles := w.cp.Client().CoreV1().ServiceAccounts(namespace), w.cp.Client().RbacV1().RoleBindings(namespace)
	_, err := accounts.Create(w.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	w.must(err)
	_, err = roles.Create(w.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}}},
		metav1.CreateOptions{})
	w.must(err)
	token, err := w.cp.ServiceAccountToken(w.Context(), namespace, name, 10*time.Minute)
	w.must(err)
	client, want := w.client(token).CoreV1(), []string{}
	w.eventually("the account may list pods", func() bool {
		_, err := client.Pods(namespace).List(w.Context(), metav1.ListOptions{})
		if err != nil {
			want = append(want, "list pods 403 true")
		}
		return err == nil
	})
	if _, err := client.Nodes().List(w.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		w.Errorf("listing nodes: %v; want it forbidden", err)
	}
	want = append(want, "list pods 200 false", "list nodes 403 true")
	var got []string
	w.eventually("the audit log has all of the account's requests", func() bool {
		all, err := w.cp.AuditLog()
		w.must(err)
		got = nil
		for _, r := range all {
			if r.User == "system:serviceaccount:"+namespace+":"+name {
				got = append(got, fmt.Sprintf("%s %s %d %v", r.Verb, r.Resource, r.Code, r.Forbidden))
			}
			if r.User == "system:apiserver" {
				w.Fatalf("the audit log has the control plane's own %s %s", r.Verb, r.URI)
			}
		}
		return slices.Equal(got, want)
	})
}

// testKubelet covers a pod that exits in time, one that is killed and one that is deleted twice. The cluster contract
// in test/e2e covers nodes without power.
func (w *world) testKubelet() {
	pods := w.cp.Client().CoreV1().Pods(namespace)
	end := func(name string, grace int64) {
		w.must(pods.Delete(w.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
	}
	for name, exit := range map[string]string{"polite": "500ms", "deaf": "1h", "hurried": "1h"} {
		w.start(name, exit, corev1.PodSpec{})
	}
	end("polite", 30)
	end("deaf", 3)
	end("hurried", 60)
	w.eventually("SIGTERM is recorded", func() bool { return strings.Contains(w.recorded("hurried"), "sigterm") })
	end("hurried", 2)
	for name, want := range map[string]string{
		"polite":  "started 0, ready 0, sigterm 30, exited 30, removed 30",
		"deaf":    "started 0, ready 0, sigterm 3, sigkill 3, removed 3",
		"hurried": "started 0, ready 0, sigterm 60, grace-shortened 2, sigkill 2, removed 2",
	} {
		w.eventually(name+" is recorded as removed",
			func() bool { return strings.Contains(w.recorded(name), "removed") })
		if got := w.recorded(name); got != want {
			w.Errorf("%s: %s; want %s", name, got, want)
		}
	}
	records, err := w.cp.KubeletLog()
	w.must(err)
	at := map[testenv.KubeletEvent]time.Time{}
	for _, r := range records {
		if r.Pod == "deaf" {
			at[r.Event] = r.Time
		}
	}
	if lived := at[testenv.PodSigKill].Sub(at[testenv.PodSigTerm]); lived < 3*time.Second || lived > 4*time.Second {
		w.Errorf("killed %v after SIGTERM; want its 3 s of grace", lived)
	}
}

// testShutdown covers a kubelet that delays the shutdown of its machine, by 3 s for ordinary pods and 2 s for critical
// ones.
func (w *world) testShutdown() {
	node := testenv.SpotNodes(2)[1]
	w.must(w.cp.CreateNodes(w.Context(), node))
	pods, on := w.cp.Client().CoreV1().Pods(namespace), node.Object().Name
	grace := func(seconds int64) corev1.PodSpec {
		return corev1.PodSpec{NodeName: on, TerminationGracePeriodSeconds: &seconds}
	}
	w.start("short", "1h", grace(2))
	w.start("long", "500ms", grace(3600))
	w.start("slow", "1h", grace(3600))
	w.start("leaving", "1h", grace(3600))
	critical := grace(3600)
	critical.PriorityClassName = "system-node-critical"
	w.start("critical", "1s", critical)
	w.must(pods.Delete(w.Context(), "leaving", metav1.DeleteOptions{}))
	w.eventually("SIGTERM is recorded", func() bool { return strings.Contains(w.recorded("leaving"), "sigterm") })

	down := make(chan error)
	go func() { down <- w.cp.ShutDown(w.Context(), on, 3*time.Second, 2*time.Second) }()
	w.eventually("the node is NotReady", func() bool {
		n, err := w.cp.Client().CoreV1().Nodes().Get(w.Context(), on, metav1.GetOptions{})
		w.must(err)
		return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse && c.Message == "node is shutting down"
		})
	})
	w.create("late", "1s", grace(30))
	w.must(<-down)
	for name, want := range map[string]string{
		"short":    "started 0, ready 0, sigterm 2, sigkill 2",
		"long":     "started 0, ready 0, sigterm 3, exited 3",
		"slow":     "started 0, ready 0, sigterm 3, sigkill 3",
		"leaving":  "started 0, ready 0, sigterm 3600, grace-shortened 3, sigkill 3, removed 3",
		"critical": "started 0, ready 0, sigterm 2, exited 2",
		"late":     "",
	} {
		if got := w.recorded(name); got != want {
			w.Errorf("%s: %s; want %s", name, got, want)
		}
		if name == "leaving" {
			continue
		}
		pod, err := pods.Get(w.Context(), name, metav1.GetOptions{})
		w.must(err)
		reason := "Terminated"
		if name == "late" {
			reason = "NodeShutdown"
		}
		if s := pod.Status; s.Phase != corev1.PodFailed || s.Reason != reason || pod.DeletionTimestamp != nil {
			w.Errorf("%s is %s, %q, deleted %v; want Failed, %q, not deleted", name, s.Phase, s.Reason,
				pod.DeletionTimestamp, reason)
		}
	}
	records, err := w.cp.KubeletLog()
	w.must(err)
	var order []string
	for _, r := range records {
		if r.Node == on && slices.Contains([]string{"short", "critical", ""}, r.Pod) {
			order = append(order, strings.TrimSpace(r.Pod+" "+string(r.Event)))
		}
	}
	if want := []string{"short sigkill", "critical sigterm", "critical exited", "power-cut"}; len(order) < len(want) ||
		!slices.Equal(order[len(order)-len(want):], want) {
		w.Errorf("the records are %q; want %q at the end", order, want)
	}
}

// start creates a pod and waits until it is Ready.
func (w *world) start(name, exit string, spec corev1.PodSpec) {
	w.Helper()
	w.create(name, exit, spec)
	w.eventually(name+" is Ready", func() bool { return strings.Contains(w.recorded(name), "ready") })
}

// create creates a pod that exits after SIGTERM in the given time.
func (w *world) create(name, exit string, spec corev1.PodSpec) {
	w.Helper()
	spec.Containers = []corev1.Container{{Name: "main", Image: "example.com/main"}}
	_, err := w.cp.Client().CoreV1().Pods(namespace).Create(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, Annotations: map[string]string{testenv.ExitAfterAnnotation: exit}}, Spec: spec},
		metav1.CreateOptions{})
	w.must(err)
}

// recorded returns the kubelet's records of a pod, each with the grace period.
func (w *world) recorded(pod string) string {
	records, err := w.cp.KubeletLog()
	w.must(err)
	var all []string
	for _, r := range records {
		if r.Namespace == namespace && r.Pod == pod {
			all = append(all, fmt.Sprintf("%s %d", r.Event, r.Grace))
		}
	}
	return strings.Join(all, ", ")
}

// said returns the authenticator's log so far.
func (w *world) said() string {
	text, err := os.ReadFile(w.log)
	w.must(err)
	return string(text)
}

func (w *world) client(token string) kubernetes.Interface {
	client, err := kubernetes.NewForConfig(w.cp.TokenConfig(token))
	w.must(err)
	return client
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) eventually(what string, so func() bool) {
	w.Helper()
	for begin := time.Now(); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			w.Fatalf("waited 20 s until %s", what)
		}
	}
}

// token has the inputs of a bearer token for the authenticator.
type token struct {
	identity  fakests.Identity
	clusterID string
	host      string // of STS
	at        time.Time
	expires   int // seconds
}

// mint presigns GetCallerIdentity for the cluster without sending a request.
func (k token) mint(t *testing.T) string {
	t.Helper()
	url := fmt.Sprintf("https://%s/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=%d", k.host, k.expires)
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-K8s-Aws-Id", k.clusterID)
	nothing := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{
		AccessKeyID: k.identity.AccessKeyID, SecretAccessKey: k.identity.SecretAccessKey,
		SessionToken: k.identity.SessionToken,
	}, r, hex.EncodeToString(nothing[:]), "sts", "eu-central-1", k.at)
	if err != nil {
		t.Fatal(err)
	}
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(signed))
}
