package onboard

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// TestCommandsDoWhatThePlanDoes: carried out by hand they lead to the same objects.
func TestCommandsDoWhatThePlanDoes(t *testing.T) {
	for name, c := range map[string]testCluster{
		"none":     {},
		"aws-auth": {daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles + "# it's\n"}},
		"objects":  {daemonSet: daemonSet("--backend-mode=CRD"), mappings: []kubeadmin.Object{mappingObject("ops", "arn:aws:iam::111122223333:role/Ours", "ops")}},
		"a file":   {daemonSet: daemonSet(configFlag), file: "clusterID: c\n"},
	} {
		s := c.state()
		p, err := testMapping.Plan(s)
		if err != nil {
			t.Fatal(err)
		}
		done := after(t, s, p)
		removal, err := testMapping.PlanRemoval(done)
		if err != nil {
			t.Fatal(err)
		}
		follow(t, name, s, p, done)
		follow(t, name+", back", done, removal, after(t, done, removal))
	}
}

// follow holds the commands of each change to what its step makes of its object.
func follow(t *testing.T, name string, s MappingState, p MappingPlan, done MappingState) {
	t.Helper()
	steps := map[string]mappingStep{}
	for _, step := range p.steps {
		steps[step.ref.String()] = step
	}
	for _, c := range p.Changes {
		if c.Changes() != (len(c.Commands) > 0) {
			t.Errorf("%s: %v has the commands %q", name, c.Name, c.Commands)
		}
		if !c.Changes() {
			continue
		}
		step := steps[c.Kind+" "+c.Name]
		now, want, command := s.objectOf(step.ref), done.objectOf(step.ref), c.Commands[0]
		var got map[string]any
		switch c.Verb {
		case change.Create:
			text, ok := strings.CutPrefix(command, "kubectl create -f - <<'EOF'\n")
			if !ok || yaml.Unmarshal([]byte(strings.TrimSuffix(text, "EOF")), &got) != nil {
				t.Errorf("%s: %s", name, command)
			}
		case change.Update:
			_, patch, _ := strings.Cut(command, " --type=merge --patch='")
			if strings.Contains(strings.ReplaceAll(strings.TrimSuffix(patch, "'"), `'\''`, ""), "'") {
				t.Errorf("%s: a shell would end the word early: %s", name, command)
			}
			patch = strings.ReplaceAll(strings.TrimSuffix(patch, "'"), `'\''`, "'")
			var change map[string]any
			if err := json.Unmarshal([]byte(patch), &change); err != nil {
				t.Errorf("%s: %v: %s", name, err, command)
			}
			got = merge(now.Clone(), change)
		case change.Delete:
			if !strings.HasSuffix(command, " "+step.ref.Name) || !strings.Contains(command, " delete "+step.ref.Resource) {
				t.Errorf("%s: %s", name, command)
			}
		}
		if !sameObject(got, want) {
			t.Errorf("%s: by hand %s becomes\n%v\nand by the plan\n%v", name, step.ref, got, want)
		}
	}
}

// merge is RFC 7396, without its patience for what is no map.
func merge(o, patch map[string]any) map[string]any {
	for key, value := range patch {
		below, _ := o[key].(map[string]any)
		switch value := value.(type) {
		case nil:
			delete(o, key)
		case map[string]any:
			if below == nil {
				below = map[string]any{}
			}
			o[key] = merge(below, value)
		default:
			o[key] = value
		}
	}
	return o
}

// TestTheDiffShowsWhatChanges, and not our own note.
func TestTheDiffShowsWhatChanges(t *testing.T) {
	s := testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}}.state()
	p, err := testMapping.Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Changes, func(c change.Change) bool { return c.Name == "kube-system/aws-auth" })
	got := strings.Join(p.Changes[i].Diff, "\n")
	const want = `  data.mapRoles:
  ...
  
    groups: [system:nodes]
+ - rolearn: arn:aws:iam::111122223333:role/Ours
+   username: kops-spot
+   groups:
+     - cast:spot-handler
  # the end
  data.mapUsers:
+ - userarn: arn:aws:iam::111122223333:user/a/path/cast-kops-prod
+   username: cast-kops
+   groups:
+     - cast:console`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
