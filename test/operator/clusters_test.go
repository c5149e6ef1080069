package operator

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

// ofA and ofB return the beginnings of a snapshot's lines that belong to one cluster.
func ofA() []string {
	return []string{"user " + iam.UserName(cluster), "role CastLambdaRoleForSpot", "policy CASTKopsPolicyV2", "policy CASTKopsBoundary", "secret cast-kops/" + cluster + "/access-key",
		"policy " + iam.Values{Cluster: cluster}.PolicyName(iam.ClusterPolicy)}
}

func ofB() []string {
	return []string{"user " + iam.UserName(otherCluster), "role " + iam.FunctionRoleName(otherCluster), "policy CASTKopsPolicyV2", "policy CASTKopsBoundary", "secret cast-kops/" + otherCluster + "/access-key",
		"policy " + iam.Values{Cluster: otherCluster}.PolicyName(iam.ClusterPolicy)}
}

func TestTwoClusters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodeA, nodeB := w.cluster(cluster), w.cluster(otherCluster)
	before := w.snapshot()
	w.onboard(cluster, nodeA, nil)
	a := of(w.snapshot(), ofA()...)
	w.Reset()
	w.onboard(otherCluster, nodeB, func(want *onboard.Spec) { want.Permissions = onboard.Guide })
	policies := slices.DeleteFunc(w.Written(), func(action string) bool { return !strings.HasPrefix(action, "iam:CreatePolicy") })
	if want := []string{"iam:CreatePolicy"}; !slices.Equal(policies, want) { // its own
		t.Errorf("the second cluster's onboarding wrote a shared policy: %q", policies)
	}
	both := w.snapshot()
	if now := of(both, ofA()...); !slices.Equal(a, now) {
		t.Errorf("B's onboarding changed A's resources:\n%s", difference(a, now))
	}
	b := of(both, ofB()...)
	if !slices.ContainsFunc(b, func(line string) bool {
		return strings.Contains(line, "has arn:aws:iam::aws:policy/CloudWatchLogsFullAccess")
	}) {
		t.Errorf("the guide's policies are missing on B's role: %q", b)
	}

	w.offboard(cluster, nodeA)
	left := w.snapshot()
	if now := of(left, ofB()...); !slices.Equal(b, now) {
		t.Errorf("A's offboarding changed B's resources:\n%s", difference(b, now))
	}
	if now := of(left, ofA()[0], ofA()[1], ofA()[4], ofA()[5]); len(now) > 0 {
		t.Errorf("after A's offboarding: %q", now)
	}
	// The role's default name is available again; B keeps its own.
	w.Reset()
	w.onboard(otherCluster, nodeB, func(want *onboard.Spec) { want.Permissions = onboard.Guide })
	if again := w.Written(); len(again) > 0 {
		t.Errorf("after A's offboarding, B's onboarding wrote %q", again)
	}
	w.offboard(otherCluster, nodeB)
	w.unchanged("after both offboardings", before)
}

// TestOtherClusterNotReadable: the installer policy of one cluster does not allow access to another cluster's
// resources.
func TestOtherClusterNotReadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodeA, nodeB := w.cluster(cluster), w.cluster(otherCluster)
	w.onboard(cluster, nodeA, nil)
	before := of(w.snapshot(), ofA()...)
	w.Denies(func(_ string, form url.Values) bool {
		return form.Get("RoleName") == iam.FunctionRole || form.Get("UserName") == iam.UserName(cluster)
	})
	w.onboard(otherCluster, nodeB, nil)
	if own := of(w.snapshot(), "role "+iam.FunctionRoleName(otherCluster)); len(own) == 0 {
		t.Error("B has no role")
	}
	w.offboard(otherCluster, nodeB)
	if now := of(w.snapshot(), ofA()...); !slices.Equal(before, now) {
		t.Errorf("A changed:\n%s", difference(before, now))
	}
}

// original creates the resources of the original script for a cluster: names in another case, versions, tags.
func (w *world) original(cluster string, versions int) (policyARN string) {
	w.Helper()
	ctx, client := w.Context(), w.iam()
	tags := tagsOf("cast:managed-by", "cast.ai")
	user := "cast-kops-" + cluster
	must(client.CreateUser(ctx, &awsiam.CreateUserInput{UserName: &user, Tags: tags}))
	policyARN = w.originalPolicy(versions)
	must(client.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: &user, PolicyArn: &policyARN}))
	must(client.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: &user, PolicyArn: aws.String("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")}))
	must(client.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: &user,
		PolicyName: aws.String("CastKopsRestrictedAccess"), PolicyDocument: &allOfLambda}))
	return policyARN
}

var allOfLambda = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:*","Resource":"*"}]}`

// originalPolicy creates the shared policy of the original script with a number of versions.
func (w *world) originalPolicy(versions int) (arn string) {
	w.Helper()
	must(w.iam().CreatePolicy(w.Context(), &awsiam.CreatePolicyInput{PolicyName: aws.String("CastKopsPolicyV2"),
		PolicyDocument: &allOfLambda,
		Tags:           tagsOf("cast:managed-by", "cast.ai")}))
	arn = "arn:aws:iam::" + w.account + ":policy/CastKopsPolicyV2"
	for range versions - 1 {
		must(w.iam().CreatePolicyVersion(w.Context(), &awsiam.CreatePolicyVersionInput{PolicyArn: &arn,
			PolicyDocument: &allOfLambda}))
	}
	return arn
}

func TestOriginalNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	arn := w.original(cluster, 5)
	// The default version is the oldest; it must stay.
	r := w.run(cluster, node, nil)
	p := must(r.Plan(t.Context()))
	policy := find(t, p.Changes, change.Update, "CastKopsPolicyV2")
	if diff := strings.Join(policy.Diff, "\n"); !strings.Contains(diff, `-       "Action": "lambda:*"`) || !strings.Contains(diff, `+       "Sid": "CreateWithTheTag"`) {
		t.Errorf("the plan does not show the change of the policy:\n%s", diff)
	}
	find(t, p.Changes, change.Update, "cast-kops-"+cluster+"/CastKopsRestrictedAccess")
	find(t, p.Changes, change.Detach, "AmazonS3ReadOnlyAccess")
	try(r.Apply(t.Context(), p))
	all := w.snapshot()
	for _, line := range all {
		if strings.Contains(line, "CASTKops") && (strings.HasPrefix(line, "policy CASTKopsPolicyV2") || strings.Contains(line, "CASTKopsRestrictedaccess")) {
			t.Errorf("two names differ only in case: %s", line)
		}
	}
	versions := must(w.iam().ListPolicyVersions(t.Context(), &awsiam.ListPolicyVersionsInput{PolicyArn: &arn})).Versions
	if len(versions) != 5 {
		t.Errorf("%d versions", len(versions))
	}
	ids := map[string]bool{}
	for _, v := range versions {
		ids[*v.VersionId] = v.IsDefaultVersion
	}
	if _, kept := ids["v1"]; !kept || !ids["v6"] {
		t.Errorf("versions: %v; want the default v1 kept and v2, the oldest other one, deleted", ids)
	}
	w.Reset()
	w.onboard(cluster, node, nil)
	if again := w.Written(); len(again) > 0 {
		t.Errorf("the second run wrote %q", again)
	}
}

func TestSharedPolicyOfOtherUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.original(otherCluster, 1)
	before := w.snapshot()
	r := w.run(cluster, node, nil)
	_, err := r.Plan(t.Context())
	if err == nil || !strings.Contains(err.Error(), "all its permissions from cast-kops-"+otherCluster) || !strings.Contains(err.Error(), "--replace-shared-policy") {
		t.Fatalf("not refused: %v", err)
	}
	w.unchanged("after the refusal", before)
	w.onboard(cluster, node, func(want *onboard.Spec) { want.ReplaceShared = true })
	p := must(w.run(cluster, node, nil).PlanRemoval(t.Context()))
	kept := find(t, p.Changes, change.Leave, "CastKopsPolicyV2")
	if !strings.Contains(kept.Why, "user cast-kops-"+otherCluster) {
		t.Errorf("no reason why the policy stays: %s", kept.Why)
	}
}

// find returns a row of a plan.
func find(t *testing.T, plan change.Plan, verb change.Verb, name string) change.Change {
	t.Helper()
	for _, c := range plan {
		if c.Verb == verb && strings.HasSuffix(c.Name, name) {
			return c
		}
	}
	t.Fatalf("no row %s %s: %+v", verb, name, plan)
	return change.Change{}
}

func TestGuidePoliciesRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	least := w.snapshot()
	w.onboard(cluster, node, func(want *onboard.Spec) { want.Permissions = onboard.Guide })
	if len(w.snapshot()) != len(least)+3 {
		t.Errorf("after removing the guide's policies:\n%s", difference(least, w.snapshot()))
	}
	w.onboard(cluster, node, nil)
	w.unchanged("without the guide's policies", least)
}
