package identitymap

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
)

// daemonSet returns the authenticator's DaemonSet with additional arguments.
func daemonSet(args ...string) object {
	o := authenticatorRef.empty()
	set(o, []any{map[string]any{"name": "aws-iam-authenticator", "args": toAny(append([]string{"server"}, args...))}}, "spec", "template", "spec", "containers")
	return o
}

const configFlag = "--config=/etc/aws-iam-authenticator/config.yaml"

// testCluster is the state of a cluster.
type testCluster struct {
	daemonSet  object
	awsAuth    map[string]string
	file       string
	mappings   []object
	noMappings bool // without the CRD
	secret     object
}

func (c testCluster) state() state {
	s := state{mappings: c.mappings, hasCRD: !c.noMappings, applied: map[ref]object{}, objects: map[ref]object{
		authenticatorRef: c.daemonSet, awsAuthRef: configMap(awsAuthRef, c.awsAuth), tokenRef: c.secret}}
	if c.file != "" {
		r := configRef(c.daemonSet)
		s.objects[r] = configMap(r, map[string]string{fileKey: c.file})
	}
	for _, o := range allManifests {
		s.applied[refOf(o)] = o
	}
	return s
}

func crdObject(name, arn string, groups ...string) object {
	r := crdKind
	r.name = name
	o := r.empty()
	set(o, map[string]any{"arn": arn, "username": "theirs", "groups": toAny(groups)}, "spec")
	return o
}

var testMapping = Mapping{Cluster: "prod.example.com", Identities: bothOurs}

// after returns the state after a plan.
func after(t *testing.T, s state, p Plan) state {
	t.Helper()
	next := s
	next.objects, next.mappings = maps.Clone(s.objects), slices.Clone(s.mappings)
	for _, step := range p.steps {
		if !step.Changes() {
			continue
		}
		o, err := step.manifest, error(nil)
		if o == nil {
			o, _, err = step.mutate(next.objectOf(step.ref))
		}
		if err != nil {
			t.Fatal(err)
		}
		if step.ref.Kind != crdKind.Kind {
			next.objects[step.ref] = o
			continue
		}
		next.mappings = slices.DeleteFunc(next.mappings, func(m object) bool { return m.GetName() == step.ref.name })
		if o != nil {
			next.mappings = append(next.mappings, o)
		}
	}
	return next
}

// TestPlanAndRemoval: after a plan nothing is left to change, and its removal restores the original state.
func TestPlanAndRemoval(t *testing.T) {
	theirs := []object{crdObject("ops", "arn:aws:iam::111122223333:role/Ours", "ops"), crdObject("zed", "arn:aws:iam::111122223333:user/zed", "z")}
	for name, c := range map[string]testCluster{
		"none":         {},
		"aws-auth":     {daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}},
		"objects":      {daemonSet: daemonSet("--backend-mode=CRD")},
		"their object": {daemonSet: daemonSet("--backend-mode=CRD"), mappings: theirs},
		"a file":       {daemonSet: daemonSet(configFlag), file: "clusterID: c # c\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.state()
			p, err := testMapping.decide(s)
			if err != nil || p.Changes.Empty() {
				t.Fatal(err, p.Changes)
			}
			done := after(t, s, p)
			again, err := testMapping.decide(done)
			if err != nil || !again.Changes.Empty() {
				t.Errorf("second run: %v, %v", err, again.Changes)
			}
			identities := testMapping
			identities.IdentitiesOnly = true
			some, err := identities.decideRemoval(done)
			if err != nil {
				t.Fatal(err)
			}
			left := after(t, done, some)
			for _, o := range allManifests {
				if r := refOf(o); !reflect.DeepEqual(left.objects[r], done.objects[r]) {
					t.Errorf("removing only the identities changes %s", r)
				}
			}
			// Without its stack, the function's role is not known.
			guess := testMapping
			guess.Identities = slices.Clone(testMapping.Identities)
			guess.Identities[0].ARN = "arn:aws:iam::111122223333:role/CastLambdaRoleForSpot"
			removal, err := guess.decideRemoval(done)
			if err != nil {
				t.Fatal(err)
			}
			back := after(t, done, removal)
			for ref, o := range back.objects {
				if was := s.objects[ref]; !reflect.DeepEqual(meaning(t, o), meaning(t, was)) {
					t.Errorf("%s: got %v, want %v", ref, o, was)
				}
			}
			if len(back.mappings) != len(s.mappings) {
				t.Errorf("%d objects remain of %d", len(back.mappings), len(s.mappings))
			}
			for _, o := range s.mappings {
				ref := refOf(o)
				if is := back.objectOf(ref); !reflect.DeepEqual(is, o) {
					t.Errorf("%s: got %v, want %v", ref, is, o)
				}
			}
			if again, err := testMapping.decideRemoval(back); err != nil || !again.Changes.Empty() {
				t.Errorf("second removal: %v, %v", err, again.Changes)
			}
		})
	}
}

// TestIdentityWithoutGroupsIsRemoved from every backend, and others stay.
func TestIdentityWithoutGroupsIsRemoved(t *testing.T) {
	nobody := testUser
	nobody.Groups = nil
	for mode, ds := range map[string]object{"EKSConfigMap": daemonSet("--backend-mode=EKSConfigMap"), "CRD": daemonSet("--backend-mode=CRD"), "MountedFile": daemonSet(configFlag)} {
		s := testCluster{daemonSet: ds}.state()
		p, err := testMapping.decide(s)
		if err != nil {
			t.Fatal(err)
		}
		s = after(t, s, p)
		p, err = Mapping{Cluster: "prod.example.com", Identities: []Identity{testRole, nobody}}.decide(s)
		if err != nil || p.Changes.Empty() {
			t.Errorf("%s: %v: %v", mode, err, p.Changes)
		}
		is, left := "", after(t, s, p)
		for _, o := range slices.AppendSeq(left.mappings, maps.Values(left.objects)) {
			if o != nil {
				is += fmt.Sprintln(o.Object)
			}
		}
		if strings.Contains(is, "cast-kops-prod") || !strings.Contains(is, "role/Ours") {
			t.Errorf("%s: it still has %s", mode, is)
		}
	}
}

// TestInterruptedRollout: the next run restarts the pods even if the file is up to date. The same holds for a removal.
func TestInterruptedRollout(t *testing.T) {
	s := testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: c\n"}.state()
	interrupted := func(s state, p Plan) state {
		p.steps = slices.DeleteFunc(slices.Clone(p.steps), func(s step) bool { return s.ref == authenticatorRef })
		return after(t, s, p)
	}
	p, err := testMapping.decide(s)
	if err != nil {
		t.Fatal(err)
	}
	half := interrupted(s, p)
	next, err := testMapping.decide(half)
	if err != nil || next.Changes.Count(change.Update) != 1 || !strings.Contains(fmt.Sprint(next.Changes), "{change DaemonSet") {
		t.Errorf("%v: %v", err, next.Changes)
	}
	done := after(t, half, next)
	removal, err := testMapping.decideRemoval(done)
	if err != nil {
		t.Fatal(err)
	}
	next, err = testMapping.decideRemoval(interrupted(done, removal))
	if err != nil || next.Changes.Count(change.Update) != 1 || !strings.Contains(fmt.Sprint(next.Changes), "{change DaemonSet") {
		t.Errorf("removal: %v: %v", err, next.Changes)
	}
	byHand := testCluster{daemonSet: daemonSet(configFlag),
		file: "clusterID: c\nserver:\n  mapRoles:\n    - roleARN: arn:aws:iam::111122223333:role/Ours\n      username: kops-spot\n      groups: [cast:spot-handler]\n"}
	removal, err = testMapping.decideRemoval(byHand.state())
	if err != nil || !strings.Contains(fmt.Sprint(removal.Changes), "{change DaemonSet") {
		t.Errorf("removing a handwritten entry does not restart the pods: %v: %v", err, removal.Changes)
	}
	next, err = testMapping.decideRemoval(after(t, byHand.state(), removal))
	if err != nil || !next.Changes.Empty() {
		t.Errorf("second removal: %v: %v", err, next.Changes)
	}
}

// TestOnDeletePods: the plan says that somebody has to delete the pods.
func TestOnDeletePods(t *testing.T) {
	ds := daemonSet(configFlag)
	set(ds, "OnDelete", "spec", "updateStrategy", "type")
	p, err := testMapping.decide(testCluster{daemonSet: ds, file: "clusterID: c\n"}.state())
	if err != nil || !strings.Contains(fmt.Sprint(p.Changes), "then delete the pods, one after another") {
		t.Errorf("%v: %v", err, p.Changes)
	}
	if slices.ContainsFunc(p.steps, func(s step) bool { return s.ref == authenticatorRef && s.then != nil }) {
		t.Error("it waits for pods that nobody restarts")
	}
}

// TestExistingTokenSecret: a Secret of another type is an error, and a token that is no longer needed is reported.
func TestExistingTokenSecret(t *testing.T) {
	if _, err := testMapping.decide(testCluster{secret: tokenRef.empty()}.state()); err == nil || !strings.Contains(err.Error(), "delete it and run this again") {
		t.Errorf("got %v", err)
	}
	ours, _, err := mutateToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := testMapping.decide(testCluster{daemonSet: daemonSet("--backend-mode=CRD"), secret: ours}.state())
	if err != nil || !strings.Contains(fmt.Sprint(p.Changes), "{leave Secret kube-system/kops-spot-token the function may still use it") {
		t.Errorf("%v: %v", err, p.Changes)
	}
}

// TestManifestOrder: roles and accounts are created before their bindings, and deleted after them.
func TestManifestOrder(t *testing.T) {
	m := Mapping{Karpenter: true}
	p, err := m.decide(testCluster{}.state())
	if err != nil {
		t.Fatal(err)
	}
	removal, err := m.decideRemoval(after(t, testCluster{}.state(), p))
	if err != nil {
		t.Fatal(err)
	}
	for want, plan := range map[string]change.Plan{
		"ServiceAccount ClusterRole ClusterRole ClusterRoleBinding ClusterRoleBinding ": p.Changes,
		"ClusterRoleBinding ClusterRoleBinding ClusterRole ClusterRole ServiceAccount ": removal.Changes,
	} {
		got := ""
		for _, c := range plan {
			got += c.Kind + " "
		}
		if got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

// TestRemovalKeepsForeignObjects, and the plan says so.
func TestRemovalKeepsForeignObjects(t *testing.T) {
	s, objects := testCluster{}.state(), allManifests
	for _, o := range objects {
		o = o.DeepCopy()
		unset(o, "metadata", "labels")
		s.objects[refOf(o)] = o
	}
	p, err := testMapping.decideRemoval(s)
	if err != nil || !p.Changes.Empty() || p.Changes.Count(change.Leave) != len(objects) {
		t.Errorf("%v: %v", err, p.Changes)
	}
}

// TestRemovalKeepsBoundRole: a role that others bind stays, and the plan names the bindings.
func TestRemovalKeepsBoundRole(t *testing.T) {
	s := testCluster{}.state()
	p, err := testMapping.decide(s)
	if err != nil {
		t.Fatal(err)
	}
	s = after(t, s, p)
	theirs := inKubeSystem("rbac.authorization.k8s.io", "RoleBinding", "theirs").empty()
	set(theirs, map[string]any{"kind": "ClusterRole", "name": "kops-spot"}, "roleRef")
	s.bindings = []object{theirs}
	p, err = testMapping.decideRemoval(s)
	got := fmt.Sprint(p.Changes)
	if err != nil || !strings.Contains(got, "{leave ClusterRole kops-spot others bind it: RoleBinding kube-system/theirs") ||
		strings.Contains(got, "{delete ClusterRole ") {
		t.Errorf("%v: %s", err, got)
	}
}

// TestDiffWithoutStatus: controllers change the status of an object between its reading and the dry run.
func TestDiffWithoutStatus(t *testing.T) {
	now, next := daemonSet(), daemonSet()
	set(next, int64(2), "status", "numberReady")
	set(next, "2", "metadata", "annotations", "deployment.kubernetes.io/revision")
	if diff := objectDiff(now, next); len(diff) > 0 {
		t.Errorf("got %q", diff)
	}
}

// TestDiff: it shows what changes, without our annotation.
func TestDiff(t *testing.T) {
	s := testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}}.state()
	p, err := testMapping.decide(s)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Changes, func(c change.Change) bool { return c.Name == "kube-system/aws-auth" })
	got := strings.Join(p.Changes[i].Diff, "\n")
	const want = `  data.mapRoles:
  # nodes
  
- - rolearn: arn:aws:iam::111122223333:role/nodes  # all
+ - rolearn: arn:aws:iam::111122223333:role/nodes # all
    username: system:node:{{EC2PrivateDNSName}}
- 
-   groups: [system:nodes]
+   groups: ['system:nodes']
+ - rolearn: arn:aws:iam::111122223333:role/Ours
+   username: kops-spot
+   groups:
+     - cast:spot-handler
+ 
  # the end
  data.mapUsers:
+ - userarn: arn:aws:iam::111122223333:user/a/path/cast-kops-prod
+   username: cast-kops
+   groups:
+     - cast:console`
	if why := p.Changes[i].Why; got != want || !strings.Contains(why, "which may change blank lines and quotes") {
		t.Errorf("%s: got\n%s\nwant\n%s", why, got, want)
	}
	if p, err = testMapping.decide(after(t, s, p)); err != nil || strings.Contains(fmt.Sprint(p.Changes), "blank lines") {
		t.Errorf("%v: nothing changes, but the plan says %v", err, p.Changes)
	}
}

// TestExport: every file with objects is in the kustomization, and no other.
func TestExport(t *testing.T) {
	const (
		mapRoles = "# An entry for mapRoles of ConfigMap kube-system/aws-auth\n- rolearn: "
		inFile   = "# An entry for config.yaml.server.mapRoles of ConfigMap kube-system/aws-iam-authenticator\n- roleARN: "
		inSpec   = "spec:\n  authentication:\n    aws:\n      identityMappings:\n        - arn: arn:aws:iam::111122223333:role/Ours\n" +
			"          username: kops-spot\n          groups:\n            - cast:spot-handler\n        - arn: " // the user's
	)
	for name, c := range map[string]struct {
		testCluster
		files   map[string]string // beside rbac.yaml, and the kustomization; with a part of their text
		objects string            // in the kustomization
	}{
		"without an authenticator": {testCluster{}, map[string]string{fileToken: "kubernetes.io/service-account-token"}, "[rbac.yaml token.yaml]"},
		"objects": {testCluster{daemonSet: daemonSet("--backend-mode=CRD")},
			map[string]string{fileMapping: "kind: IAMIdentityMapping", fileKops: inSpec}, "[rbac.yaml identity-mapping.yaml]"},
		"aws-auth": {testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap")}, map[string]string{FileEntries: mapRoles}, "[rbac.yaml]"},
		"file":     {testCluster{daemonSet: daemonSet(configFlag), file: "clusterID: c\n"}, map[string]string{FileEntries: inFile}, "[rbac.yaml]"},
		"two backends": {testCluster{daemonSet: daemonSet(configFlag, "--backend-mode=MountedFile,CRD"),
			file: "clusterID: c\nserver: {mapRoles: [{roleARN: 'arn:aws:iam::111122223333:role/Ours', username: x}]}\n"},
			map[string]string{FileEntries: inFile, fileMapping: "user/a/path/cast-kops-prod", fileKops: "user/a/path/cast-kops-prod"}, "[rbac.yaml identity-mapping.yaml]"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := testMapping.decide(c.state())
			if err != nil {
				t.Fatal(err)
			}
			files, err := testMapping.export(p)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.files {
				if !strings.Contains(string(files[name]), want) {
					t.Errorf("%s does not contain %q:\n%s", name, want, files[name])
				}
			}
			var kustomization struct{ Resources []string }
			if err := yaml.Unmarshal(files[fileKustomization], &kustomization); err != nil || fmt.Sprint(kustomization.Resources) != c.objects ||
				len(files) != len(c.files)+2 {
				t.Errorf("%v: the kustomization of %d files has %q, want %s", err, len(files), kustomization.Resources, c.objects)
			}
		})
	}
}
