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
)

var everything = aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)

// TestForeignRights: the plan names what somebody else has granted, and changes nothing of it.
func TestForeignRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	user, role, client := aws.String(iam.UserName(cluster)), aws.String(iam.FunctionRole), w.iam()
	admin := aws.String("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
	must(client.PutUserPolicy(t.Context(), &awsiam.PutUserPolicyInput{UserName: user, PolicyName: aws.String("all"), PolicyDocument: everything}))
	must(client.CreateGroup(t.Context(), &awsiam.CreateGroupInput{GroupName: aws.String("admins")}))
	must(client.AddUserToGroup(t.Context(), &awsiam.AddUserToGroupInput{GroupName: aws.String("admins"), UserName: user}))
	must(client.CreateLoginProfile(t.Context(), &awsiam.CreateLoginProfileInput{UserName: user, Password: aws.String("Not-a-secret-1")}))
	must(client.AttachRolePolicy(t.Context(), &awsiam.AttachRolePolicyInput{RoleName: role, PolicyArn: admin}))
	must(client.PutRolePolicy(t.Context(), &awsiam.PutRolePolicyInput{RoleName: role, PolicyName: aws.String("all"), PolicyDocument: everything}))
	must(client.PutRolePermissionsBoundary(t.Context(), &awsiam.PutRolePermissionsBoundaryInput{RoleName: role, PermissionsBoundary: admin}))
	p := must(w.run(cluster, node, nil).Plan(t.Context()))
	var got []string
	for _, f := range p.Changes.Reviews() {
		got = append(got, f.Name)
	}
	want := []string{"policy CastLambdaRoleForSpot/AmazonS3ReadOnlyAccess", "inline policy CastLambdaRoleForSpot/all",
		"permissions boundary CastLambdaRoleForSpot/AmazonS3ReadOnlyAccess", "inline policy " + *user + "/all",
		"group " + *user + "/admins", "console password " + *user}
	if !slices.Equal(got, want) || !p.Changes.Empty() {
		t.Errorf("to review:\n%s\nwant\n%s\nand nothing to change: %+v", strings.Join(got, "\n"), strings.Join(want, "\n"), p.Changes)
	}
	left := find(t, must(w.run(cluster, node, nil).PlanRemoval(t.Context())).Changes, change.Leave, *user)
	if !strings.Contains(left.Why, "admins: remove it from there") {
		t.Errorf("the user in a group: %s", left.Why)
	}
}

// TestPreparedNames: a user or a role that somebody else has prepared under our names gets no permissions.
func TestPreparedNames(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*world){
		"user": func(w *world) {
			must(w.iam().CreateUser(w.Context(), &awsiam.CreateUserInput{UserName: aws.String(iam.UserName(cluster))}))
		},
		"role": func(w *world) {
			must(w.iam().CreateRole(w.Context(), &awsiam.CreateRoleInput{RoleName: aws.String(iam.FunctionRoleName(cluster)), AssumeRolePolicyDocument: everything}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			node := w.cluster(cluster)
			prepare(w)
			before := w.snapshot()
			_, err := w.run(cluster, node, nil).Plan(t.Context())
			if err == nil || !strings.Contains(err.Error(), "aws iam tag-"+name) {
				t.Errorf("not refused: %v", err)
			}
			for _, c := range must(w.run(cluster, node, nil).PlanRemoval(t.Context())).Changes {
				if c.Changes() {
					t.Errorf("offboarding would %s", c.Row())
				}
			}
			w.unchanged("after the refusal", before)
		})
	}
}

// TestRolesMadeByUser: offboarding names the roles that the cluster's user has created, and no other's.
func TestRolesMadeByUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	for name, of := range map[string]string{"cast-node-a": cluster, "cast-node-b": otherCluster} {
		must(w.iam().CreateRole(t.Context(), &awsiam.CreateRoleInput{RoleName: &name, Path: aws.String(iam.RolePath(of)), AssumeRolePolicyDocument: everything}))
	}
	must(w.iam().PutRolePolicy(t.Context(), &awsiam.PutRolePolicyInput{RoleName: aws.String("cast-node-a"), PolicyName: aws.String("images"), PolicyDocument: everything}))
	p := must(w.run(cluster, node, nil).PlanRemoval(t.Context()))
	made := find(t, p.Changes, change.Review, "cast-node-a")
	want := []string{"  aws iam delete-role-policy --role-name cast-node-a --policy-name images", "  aws iam delete-role --role-name cast-node-a"}
	if !slices.Equal(made.Diff, want) || len(p.Changes.Reviews()) != 1 {
		t.Errorf("%q, want %q", made.Diff, want)
	}
}

// TestUnreadableUsers: an operator who may not read the users of other clusters gets that as the reason.
func TestUnreadableUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodeA, nodeB := w.cluster(cluster), w.cluster(otherCluster)
	w.onboard(cluster, nodeA, nil)
	w.fiveVersions() // the policy differs from ours
	w.Denies(func(_ string, form url.Values) bool { return form.Get("UserName") == iam.UserName(cluster) })
	_, err := w.run(otherCluster, nodeB, nil).Plan(t.Context())
	if err == nil || !strings.Contains(err.Error(), iam.UserName(cluster)+", whose tags you may not read: allow iam:GetUser") {
		t.Errorf("%v", err)
	}
}
