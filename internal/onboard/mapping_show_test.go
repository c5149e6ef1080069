package onboard

import (
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

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
