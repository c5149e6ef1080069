package identitymap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

// TestBackend: identities are mapped in a backend that the authenticator uses, in a watched one if possible, and never
// after one that already has the identity.
func TestBackend(t *testing.T) {
	const roles = "clusterID: c\nserver:\n  mapRoles:\n  - roleARN: arn:aws:iam::111122223333:role/Ours\n    username: x\n"
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
		"several, and the file maps the whole account": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD"), file: "clusterID: c\nserver:\n  mapAccounts: ['111122223333']\n"},
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

// TestUnusableText: a list that somebody else has broken stops only the edit of that list.
func TestUnusableText(t *testing.T) {
	broken := "clusterID: c\n\n\nserver:\n\n  mapRoles:\n  - role_arn: arn:aws:iam::111122223333:role/theirs\n    username: x\n"
	const line = "line 7: in server.mapRoles: it has no roleARN: misspelt as role_arn?"
	for name, c := range map[string]struct {
		testCluster
		err    string // of the plan
		review string // of a row
	}{
		"accounts of another type": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapAccounts": "'444455556666'"}},
			"", "reading mapAccounts of ConfigMap kube-system/aws-auth: line 1: it should be a list: the authenticator ignores this list"},
		"accounts that are not YAML": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap,CRD"), awsAuth: map[string]string{"mapAccounts": "[{"}},
			"", "the authenticator ignores this list"},
		"accounts as text in the file": {testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: c\nserver:\n  mapAccounts: '444455556666'\n"}, "", ""},
		"a file that is not the backend": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD"), file: broken},
			"", line + ": correct the file before a pod restarts"},
		"a file that is no YAML, and flags with the rest": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=CRD", "--cluster-id=c"), file: "{"},
			"", "correct the file before a pod restarts"},
		"a file that is no YAML and has the mode": {testCluster{daemonSet: daemonSet(configFlag), file: "{"}, "reading config.yaml of ConfigMap kube-system/aws-iam-authenticator: nothing was changed", ""},
		"a file with which it would not start": {testCluster{daemonSet: daemonSet(configFlag), file: broken},
			"restarting the authenticator: nothing was changed there: config.yaml of ConfigMap kube-system/aws-iam-authenticator: the authenticator would not start with this file, " +
				"and then nobody could authenticate with IAM: " + line, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := testMapping.decide(c.state())
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			if err != nil {
				return
			}
			if n := p.Changes.Count(change.Review); (n > 0) != (c.review != "") || !strings.Contains(fmt.Sprint(p.Changes), c.review) {
				t.Errorf("%d reviews, want %q: %v", n, c.review, p.Changes)
			}
		})
	}
}

// TestRemovalWithUnusableText: a removal leaves what it cannot edit, says so, and removes the rest.
func TestRemovalWithUnusableText(t *testing.T) {
	for name, c := range map[string]struct {
		testCluster
		change func(s state)
		want   string
	}{
		"a file with which it would not start": {testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: c\n"}, func(s state) {
			file := s.objects[configRef(s.objects[authenticatorRef])]
			set(file, strings.Replace(stringAt(file, "data", fileKey), "roleARN", "role_arn", 1), "data", fileKey)
		}, "line 4: in server.mapRoles: it has no roleARN: misspelt as role_arn?: correct it and run this again"},
		"a file that is no YAML": {testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: c\n"}, func(s state) {
			file := s.objects[configRef(s.objects[authenticatorRef])]
			set(file, stringAt(file, "data", fileKey)+"}", "data", fileKey)
		}, "remove it by hand"},
		"aws-auth that is no YAML": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap")}, func(s state) {
			set(s.objects[awsAuthRef], stringAt(s.objects[awsAuthRef], "data", "mapRoles")+"}", "data", "mapRoles")
		}, "remove it by hand"},
		"aws-auth that is immutable": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}}, func(s state) {
			set(s.objects[awsAuthRef], true, "immutable")
		}, "ConfigMap kube-system/aws-auth has immutable: true"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.state()
			p, err := testMapping.decide(s)
			if err != nil {
				t.Fatal(err)
			}
			s = after(t, s, p)
			c.change(s)
			removal, err := testMapping.decideRemoval(s)
			if err != nil {
				t.Fatal(err)
			}
			if removal.Changes.Count(change.Delete) != 3 || removal.Changes.Count(change.Update) != 0 {
				t.Errorf("it does not remove exactly the RBAC: %v", removal.Changes)
			}
			if removal.Changes.Count(change.Review) != 1 || !strings.Contains(fmt.Sprint(removal.Changes), c.want) {
				t.Errorf("no row says %q: %v", c.want, removal.Changes)
			}
		})
	}
}

// TestImmutable: an immutable ConfigMap is used only if nothing has to change in it.
func TestImmutable(t *testing.T) {
	s := testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}}.state()
	set(s.objects[awsAuthRef], true, "immutable")
	p, err := testMapping.decide(s)
	if got := fmt.Sprint(p.Changes); err != nil || !p.NeedsToken ||
		!strings.Contains(got,
			"ConfigMap kube-system/aws-auth has immutable: true, so its data cannot be changed: remove that line from a copy and recreate it with kubectl replace --force") {
		t.Errorf("%v: %s", err, got)
	}
	s.objects[authenticatorRef] = daemonSet("--backend-mode=EKSConfigMap,CRD")
	if p, err = testMapping.decide(s); err != nil || p.Backends[testRole.ARN] != CRD {
		t.Errorf("with another backend: %v: %v", err, p.Backends)
	}
	s.objects[awsAuthRef] = configMap(awsAuthRef, map[string]string{"mapRoles": roleEntry, "mapUsers": userEntry})
	set(s.objects[awsAuthRef], true, "immutable")
	if p, err = testMapping.decide(s); err != nil || p.Backends[testRole.ARN] != EKSConfigMap || p.NeedsToken {
		t.Errorf("with the entries: %v: %v", err, p.Backends)
	}
}
