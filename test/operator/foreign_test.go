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
	must(client.UploadSSHPublicKey(t.Context(), &awsiam.UploadSSHPublicKeyInput{UserName: user, SSHPublicKeyBody: aws.String("ssh-rsa AAAA")}))
	must(client.EnableMFADevice(t.Context(), &awsiam.EnableMFADeviceInput{UserName: user, SerialNumber: aws.String("arn:aws:iam::1:mfa/phone"),
		AuthenticationCode1: aws.String("123456"), AuthenticationCode2: aws.String("234567")}))

	// The user stays with what somebody else has added, without our policies and keys. The rest is deleted, but for a
	// refused step and what depends on it.
	refused := func(action string, _ url.Values) bool {
		return action == "iam:DeleteRole" || action == "iam:DeleteAccessKey"
	}
	w.Denies(refused)
	r := w.run(cluster, node, nil)
	p = must(r.PlanRemoval(t.Context()))
	stays := find(t, p.Changes, change.Leave, *user)
	for _, command := range []string{"remove-user-from-group --user-name " + *user + " --group-name admins", "delete-login-profile --user-name " + *user,
		"deactivate-mfa-device --user-name " + *user + " --serial-number arn:aws:iam::1:mfa/phone", "delete-ssh-public-key --user-name " + *user + " --ssh-public-key-id "} {
		if !strings.Contains(strings.Join(stays.Diff, "\n"), "  aws iam "+command) {
			t.Errorf("%q is missing in %q", command, stays.Diff)
		}
	}
	err := r.Apply(t.Context(), p)
	if err == nil || strings.Count(err.Error(), "access denied") != 2 || !strings.HasPrefix(err.Error(), "delete access key ") ||
		!strings.Contains(err.Error(), "\ndelete IAM role CastLambdaRoleForSpot: ") {
		t.Errorf("the error is %v", err)
	}
	w.Reset()
	for _, c := range must(r.PlanRemoval(t.Context())).Changes {
		if c.Changes() && c.Kind != "access key" && c.Name != *role {
			t.Errorf("still to %s", c.Row())
		}
	}
	try(w.applyPlan(r, r.PlanRemoval))
	p = must(r.PlanRemoval(t.Context()))
	if !p.Changes.Empty() || p.State.Role != nil || p.State.ClusterPolicy != nil || p.State.KeySecret != nil || p.State.Managed != nil {
		t.Errorf("after offboarding: %+v", p.State)
	}
	if u := p.State.User; u == nil || len(u.Keys)+len(u.Attached) > 0 || len(u.Inline) != 1 {
		t.Errorf("the user is %+v", u)
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
