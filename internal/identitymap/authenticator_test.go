package identitymap

import (
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

// TestBackend: identities are mapped in a backend that the authenticator uses, in a watched one if possible, and never
// after one that already has the identity.
func TestBackend(t *testing.T) {
	const roles = "server:\n  mapRoles:\n  - roleARN: arn:aws:iam::111122223333:role/Ours\n    username: x\n"
	for name, c := range map[string]struct {
		testCluster
		role, user Backend
		why        string // of some row
	}{
		"no authenticator":            {testCluster{awsAuth: map[string]string{}}, NoBackend, NoBackend, "the cluster has no DaemonSet kube-system/aws-iam-authenticator"},
		"aws-auth":                    {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap")}, EKSConfigMap, EKSConfigMap, "within seconds; it does not exist yet"},
		"aws-auth by its old name":    {testCluster{daemonSet: daemonSet("--backend-mode", "ConfigMap")}, EKSConfigMap, EKSConfigMap, "within seconds"},
		"objects":                     {testCluster{daemonSet: daemonSet("--backend-mode=CRD")}, CRD, CRD, "within seconds"},
		"objects without the CRD":     {testCluster{daemonSet: daemonSet("--backend-mode=CRD"), noMappings: true}, NoBackend, NoBackend, "the CRD IAMIdentityMapping is missing"},
		"the default":                 {testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: x\n"}, MountedFile, MountedFile, "only when it starts"},
		"the default, without a file": {testCluster{daemonSet: daemonSet()}, NoBackend, NoBackend, "it has no --config flag"},
		"by its file":                 {testCluster{daemonSet: daemonSet("-c", "x"), file: "server:\n  backendMode: [CRD]\n"}, CRD, CRD, "within seconds"},
		"by its file, as a string":    {testCluster{daemonSet: daemonSet("-c", "x"), file: "server:\n  BackendMode: CRD\n"}, CRD, CRD, "within seconds"},
		"a flag over its file":        {testCluster{daemonSet: daemonSet("-c", "x", "--backend-mode=EKSConfigMap"), file: "server:\n  backendMode: [CRD]\n"}, EKSConfigMap, EKSConfigMap, "within seconds"},
		"an unknown backend":          {testCluster{daemonSet: daemonSet("--backend-mode=DynamicFile")}, NoBackend, NoBackend, "does not support the backend DynamicFile"},
		"several: the first watched one": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD,EKSConfigMap"), file: "clusterID: x\n"},
			CRD, CRD, "backend mode is MountedFile,CRD,EKSConfigMap: it picks up the change"},
		"several, in several flags": {testCluster{daemonSet: daemonSet("--backend-mode=DynamicFile", "--backend-mode=CRD"), noMappings: false}, CRD, CRD, "within seconds"},
		"several, and the file has the role": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD"), file: roles},
			MountedFile, CRD, "this one already has the identity"},
		"several, and the file maps the whole account": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD"), file: "server:\n  mapAccounts: ['111122223333']\n"},
			MountedFile, MountedFile, "this one already has the identity"},
		"several, and aws-auth maps another account": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap,CRD"), awsAuth: map[string]string{"mapAccounts": "- '444455556666'\n"}},
			EKSConfigMap, EKSConfigMap, "within seconds"},
		"several, and a later one has the role": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=CRD,MountedFile"), file: roles}, CRD, CRD, "within seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := testMapping.decide(c.state())
			if err != nil {
				t.Fatal(err)
			}
			if role, user := p.Backends[testRole.ARN], p.Backends[testUser.ARN]; role != c.role || user != c.user {
				t.Errorf("role in %s, user in %s; want %s and %s", role, user, c.role, c.user)
			}
			for _, one := range p.Changes {
				if one.Verb == change.Leave && one.Kind == "IAM role" && c.role == NoBackend {
					t.Errorf("the function has a token, but the plan says: %v", one)
				}
			}
			if p.NeedsToken != (c.role == NoBackend) {
				t.Errorf("NeedsToken is %v", p.NeedsToken)
			}
			if !slices.ContainsFunc(p.Changes, func(one change.Change) bool { return strings.Contains(one.Why, c.why) }) {
				t.Errorf("no row says %q: %v", c.why, p.Changes)
			}
		})
	}
}

// TestClusterID: it comes from the flag, the environment or the file, in this order.
func TestClusterID(t *testing.T) {
	env := daemonSet(configFlag)
	set(env, []any{map[string]any{"name": "x", "args": []any{configFlag},
		"env": []any{map[string]any{"name": "KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "value": "by-env"}}}}, "spec", "template", "spec", "containers")
	for want, o := range map[string]object{"by-flag": daemonSet(configFlag, "--cluster-id=by-flag"), "by-letter": daemonSet(configFlag, "-i", "by-letter"),
		"by-env": env, "by-file": daemonSet(configFlag)} {
		p, err := testMapping.decide(testCluster{daemonSet: o, file: "clusterID: by-file\n"}.state())
		if err != nil || p.ClusterID != want {
			t.Errorf("%v: %q, want %q", err, p.ClusterID, want)
		}
	}
}

// TestInvalidIdentities: most importantly, the function never gets Kubernetes' own groups.
func TestInvalidIdentities(t *testing.T) {
	for want, id := range map[string]Identity{
		"none of Kubernetes' own groups":             {Kind: Role, ARN: testRole.ARN, Username: "x", Groups: []string{"system:masters"}},
		"is not the ARN of an IAM role":              {Kind: Role, ARN: testUser.ARN, Username: "x", Groups: []string{"g"}},
		"is not the ARN of an IAM user":              {Kind: User, ARN: "arn:aws:sts::1:user/x", Username: "x", Groups: []string{"g"}},
		"set a username":                             {Kind: User, ARN: testUser.ARN, Groups: []string{"g"}},
		"mapping : it is not the ARN of an IAM user": {Kind: User, Username: "x", Groups: []string{"g"}},
	} {
		m := Mapping{Identities: []Identity{id}}
		if _, err := m.decide(testCluster{}.state()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
		if _, err := m.decideRemoval(testCluster{}.state()); err == nil {
			t.Errorf("its removal is planned: %q", want)
		}
	}
}
