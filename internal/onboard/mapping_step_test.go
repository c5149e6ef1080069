package onboard

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

// TestTheDiffShowsWhatChanges, and not our own note.
func TestTheDiffShowsWhatChanges(t *testing.T) {
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
	if why := p.Changes[i].Why; got != want || !strings.Contains(why, "blank lines and quoting in it may change") {
		t.Errorf("%s: got\n%s\nwant\n%s", why, got, want)
	}
	if p, err = testMapping.decide(after(t, s, p)); err != nil || strings.Contains(fmt.Sprint(p.Changes), "blank lines") {
		t.Errorf("%v: where nothing changes it says %v", err, p.Changes)
	}
}
