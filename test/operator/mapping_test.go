package operator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/identitymap"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
	"github.com/castai/kops-spot/test/testenv"
)

const handlerName = "kops-spot" // who the function's role is in the cluster

// The identities that STS knows. The tests map the function's role and the user; alice's mapping existed before.
var (
	function = fakests.RoleSession(account, "CastLambdaRoleForSpot", "cast-kops-prod")
	user     = fakests.User(account, "cast-kops-prod.example.com")
	alice    = fakests.User(account, "people/alice")
)

var (
	roleIdentity = identitymap.Identity{Kind: identitymap.Role, ARN: "arn:aws:iam::" + account + ":role/cast-kops/CastLambdaRoleForSpot",
		Username: handlerName, Groups: []string{identitymap.HandlerGroup}}
	userIdentity = identitymap.Identity{Kind: identitymap.User, ARN: user.ARN, Username: "cast-kops", Groups: []string{"cast:console"}}
	mapping      = identitymap.Mapping{Cluster: cluster, Identities: []identitymap.Identity{roleIdentity, userIdentity}}
)

// theirs is the existing mapping of alice, with its own formatting.
const (
	theirUsers = "# our people\n- userarn: " + "arn:aws:iam::" + account + ":user/people/alice # the admin\n  username:   \"alice\"\n\n  groups: ['people']\n# that is all\n"
	theirFile  = "# keep this in git\nclusterID: " + cluster + "\nserver:\n  port: 21362\n\n  mapUsers:\n  - userARN: arn:aws:iam::" + account +
		":user/people/alice\n    username: alice # the admin\n    groups: [people]\n\n  mapAccounts: []\n"
)

// backends maps identities with each backend of the authenticator, checks their permissions, and removes them. Existing
// mappings stay unchanged.
func backends(t *testing.T) {
	try(cp().Apply(t.Context(), []byte(testenv.MappingsCRD)))
	startDaemon(t)
	w := home(t)
	mappings := in("iamauthenticator.k8s.aws", "v1alpha1", "iamidentitymappings")
	for _, c := range []struct {
		mode    string
		awsAuth map[string]string
		file    map[string]string
		object  bool
		want    identitymap.Backend
	}{
		{mode: testenv.EKSConfigMap, want: identitymap.EKSConfigMap, awsAuth: map[string]string{"mapUsers": theirUsers, "mapRoles": "[]\n", "mapAccounts": "'000000000000'\n"}}, // no list, so the authenticator maps no account
		{mode: testenv.CRD, want: identitymap.CRD, object: true},
		{mode: "", want: identitymap.MountedFile, file: map[string]string{"config.yaml": theirFile}},
		{mode: testenv.MountedFile + "," + testenv.EKSConfigMap, want: identitymap.EKSConfigMap, file: map[string]string{"config.yaml": theirFile}},
	} {
		t.Run("mode "+c.mode, func(t *testing.T) {
			setUp(t, "aws-auth", c.awsAuth)
			setUp(t, daemonName, c.file)
			if c.object {
				o := &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": "iamauthenticator.k8s.aws/v1alpha1", "kind": "IAMIdentityMapping", "metadata": map[string]any{"name": "alice"},
					"spec": map[string]any{"arn": alice.ARN, "username": "alice", "groups": []any{"people"}}}}
				eventually(t, "alice's object is made", func() error {
					_, err := mappings.Create(t.Context(), o, metav1.CreateOptions{})
					return err
				})
				t.Cleanup(func() { try(mappings.Delete(context.WithoutCancel(t.Context()), "alice", metav1.DeleteOptions{})) })
			}
			asBefore := func() {
				t.Helper()
				settled(t)
				becomes(t, logIn(function), "")
				becomes(t, logIn(user), "")
				becomes(t, logIn(alice), "alice", "people")
				if is := data(t, "aws-auth"); !sameTexts(t, is, c.awsAuth) {
					t.Errorf("aws-auth changed from\n%q\nto\n%q", c.awsAuth, is)
				}
				if is := data(t, daemonName); !sameTexts(t, is, c.file) {
					t.Errorf("the file changed from\n%q\nto\n%q", c.file, is)
				}
				checkGone(t)
			}
			authenticator(t, c.mode)
			asBefore()

			p := plan(t, mapping, false)
			for arn, b := range p.Backends {
				if b != c.want {
					t.Errorf("%s would be mapped in %s, want %s", arn, b, c.want)
				}
			}
			if rollout := slices.ContainsFunc(p.Changes, func(c change.Change) bool {
				return c.Kind == "DaemonSet" && strings.Contains(c.Why, "fails for some seconds")
			}); rollout != (c.want == identitymap.MountedFile) {
				t.Errorf("a rollout is announced: %v", rollout)
			}
			if p.NeedsToken || p.ClusterID != cluster {
				t.Errorf("login to %q, with a token: %v", p.ClusterID, p.NeedsToken)
			}
			apply(t, p)
			checkAccess(t)
			becomes(t, logIn(alice), "alice", "people")

			before := versions(t)
			again := plan(t, mapping, false)
			apply(t, again)
			if after := versions(t); !again.Changes.Empty() || after != before {
				t.Errorf("the second run changes\n%v\nfrom\n%s\nto\n%s", again.Changes, before, after)
			}

			if c.want == identitymap.MountedFile {
				brokenFile(t)
			}
			apply(t, plan(t, mapping, true))
			asBefore()
			if !strings.Contains(c.mode, ",") {
				onboardsByCommand(w.in(t))
				asBefore()
			}
			if c.mode == testenv.EKSConfigMap {
				appliedByOthers(t, c.awsAuth)
				checkGone(t)
			}
		})
	}
}

// onboardsByCommand maps the role by command, twice, and removes the mapping.
func onboardsByCommand(w *world) {
	w.Helper()
	pre, _, _ := w.asJSON("check", "--pre") // it has no code
	if i := slices.IndexFunc(pre.Findings, func(f change.Finding) bool { return f.Name == "authentication" }); i < 0 ||
		pre.Findings[i].Detail != "login iam, as the role CastLambdaRoleForSpot" {
		w.Errorf("before: %+v", pre.Findings)
	}
	if first := w.succeed("onboard"); !first.Applied || first.Findings.Failed() {
		w.Errorf("the first run: %+v", first)
	}
	settled(w.T)
	becomes(w.T, logIn(function), handlerName, identitymap.HandlerGroup)
	checkPermissions(w.T, logIn(function))
	becomes(w.T, logIn(user), "") // not mapped without --user-is-master
	before := versions(w.T)
	if second := w.succeed("onboard"); second.Applied || !second.Plan.Empty() {
		w.Errorf("the second run: %+v", second)
	}
	if after := versions(w.T); after != before {
		w.Errorf("the second run changed\n%s\nto\n%s", before, after)
	}
	if away := w.succeed("offboard"); !away.Applied || away.Findings.Failed() {
		w.Errorf("offboarding: %+v", away)
	}
}

// checkAccess authenticates as both identities and compares the function's permissions with rbac.yaml.
func checkAccess(t *testing.T) {
	t.Helper()
	becomes(t, logIn(function), handlerName, identitymap.HandlerGroup)
	becomes(t, logIn(user), "cast-kops", "cast:console")
	checkPermissions(t, logIn(function))
}

// checkPermissions checks that the function has its permissions and no others.
func checkPermissions(t *testing.T, login loginFunc) {
	t.Helper()
	as := client(t, login).CoreV1()
	if _, err := as.Nodes().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("listing nodes: %v", err)
	}
	if _, err := as.Secrets(kubeSystem).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing secrets: %v; want forbidden", err)
	}
	cfg := must(login())
	function := must(kube.New(cfg))
	for _, r := range append(kube.Requests(), kube.Request{Verb: "*", Group: "*", Resource: "*"}) {
		allowed, _, err := function.Allowed(t.Context(), r.Verb, r.Group, r.Resource, r.Subresource)
		if want := r.Manifest == "rbac.yaml"; err != nil || allowed != want {
			t.Errorf("%s is allowed: %v; want %v: %v", r, allowed, want, err)
		}
	}
}

// checkGone checks that nothing of ours is left in the cluster.
func checkGone(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(versions(t)) {
		if strings.Contains(line, " kops-spot") || strings.Contains(line, " cast-") {
			t.Errorf("still exists: %s", line)
		}
	}
	if p := plan(t, mapping, true); !p.Changes.Empty() {
		t.Errorf("the second removal changes %v", p.Changes)
	}
}

// noAuthenticator: without one, the function authenticates with a ServiceAccount token, and the user cannot.
func noAuthenticator(t *testing.T) {
	setUp(t, "aws-auth", map[string]string{"mapRoles": "ignored"})
	p := plan(t, mapping, false)
	said := fmt.Sprint(p.Changes)
	if !p.NeedsToken || !strings.Contains(said, "copied to Secrets Manager") || !strings.Contains(said, "{leave IAM user "+user.ARN) {
		t.Errorf("plan: %s", said)
	}
	apply(t, p)
	secret, err := cp().Client().CoreV1().Secrets(kubeSystem).Get(t.Context(), "kops-spot-token", metav1.GetOptions{})
	if err != nil || len(secret.Data["token"]) == 0 || len(secret.Data["ca.crt"]) == 0 {
		t.Fatalf("%v: the token's Secret has %d values", err, len(secret.Data))
	}
	admin := cp().AdminConfig()
	ca := string(admin.CAData)
	login := func() (*rest.Config, error) {
		return kube.WithToken(kube.Endpoint{Server: admin.Host, CA: func(context.Context) (string, error) { return ca, nil }},
			func(context.Context) (string, error) { return string(secret.Data["token"]), nil }, "kops-spot/test"), nil
	}
	checkPermissions(t, login)

	before := versions(t)
	again := plan(t, mapping, false)
	apply(t, again)
	if !again.Changes.Empty() || versions(t) != before {
		t.Errorf("the second run changes %v", again.Changes)
	}
	apply(t, plan(t, mapping, true))
	eventually(t, "the token is refused", func() error {
		_, err := client(t, login).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err == nil || !strings.Contains(err.Error(), "401") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	checkGone(t)
}
