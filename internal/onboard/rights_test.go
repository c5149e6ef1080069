package onboard

import (
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

func testSpec() Spec {
	return Spec{Permissions: Least, Store: InSecretsManager{"prod.example.com"}, Environment: Environment{Values: iam.Values{
		Partition: "aws", Region: "eu-west-1", Account: "123456789012", Cluster: "prod.example.com",
		VPC: "vpc-0123456789abcdef0", NodeRoles: []string{"teams/nodes.prod.example.com", "spot.prod.example.com"}}}}
}

const awsPolicy, ownPolicy = "arn:aws:iam::aws:policy/", "arn:aws:iam::123456789012:policy/"

// originalUser is what CAST AI's original script creates.
func originalUser() *awsadmin.User {
	return &awsadmin.User{Name: "cast-kops-prod.example.com", Tags: map[string]string{"cast:managed-by": "cast.ai"},
		Rights: awsadmin.Rights{Attached: []string{ownPolicy + "CastKopsPolicyV2", awsPolicy + "AmazonEC2ReadOnlyAccess",
			awsPolicy + "IAMReadOnlyAccess", awsPolicy + "AmazonS3ReadOnlyAccess"},
			Inline: map[string]string{"CastKopsRestrictedAccess": "{}"}},
		Keys: []awsadmin.Key{{ID: "AKIA1", Active: true}}}
}

func rowsOf(steps []step, verb change.Verb) (rows []string) {
	for _, s := range steps {
		if s.Verb == verb {
			rows = append(rows, s.Kind+" "+s.Name+": "+s.Why)
		}
	}
	return rows
}

var foreignCredentials = []awsadmin.Credential{{Kind: "console password", Remove: []string{"delete-login-profile"}},
	{Kind: "MFA device", ID: "arn:aws:iam::123456789012:mfa/phone", Remove: []string{"deactivate-mfa-device", "--serial-number", "arn:aws:iam::123456789012:mfa/phone"}}}

// TestForeignRights: what somebody else has granted the user or the role is in the plan, with the command that removes
// it.
func TestForeignRights(t *testing.T) {
	const added = ": somebody else has added it: if nobody needs it, run aws iam "
	foreign := awsadmin.Rights{Attached: []string{awsPolicy + "AdministratorAccess", ownPolicy + "a;b/Mine"},
		Inline: map[string]string{"All of it": "{}"}, Boundary: ownPolicy + "Limit"}
	for _, permissions := range []string{Least, Guide} {
		w := testSpec()
		w.Permissions = permissions
		s := State{RoleName: "CastLambdaRoleForSpot", User: originalUser(), Role: &awsadmin.Role{Rights: foreign}}
		s.User.Rights = foreign
		s.User.Groups, s.User.Credentials = []string{"admins"}, foreignCredentials
		got := append(rowsOf(userRights(w, s, Files{}), change.Review), rowsOf(roleRights(w, s, Files{}, nil), change.Review)...)
		user, role := "--user-name cast-kops-prod.example.com", "--role-name CastLambdaRoleForSpot"
		want := []string{
			"policy cast-kops-prod.example.com/Mine" + added + "detach-user-policy " + user + " --policy-arn '" + ownPolicy + "a;b/Mine'",
			"policy cast-kops-prod.example.com/AdministratorAccess" + added + "detach-user-policy " + user + " --policy-arn " + awsPolicy + "AdministratorAccess",
			"inline policy cast-kops-prod.example.com/All of it" + added + "delete-user-policy " + user + " --policy-name 'All of it'",
			"permissions boundary cast-kops-prod.example.com/Limit" + added + "delete-user-permissions-boundary " + user,
			"group cast-kops-prod.example.com/admins" + added + "remove-user-from-group " + user + " --group-name admins",
			"console password cast-kops-prod.example.com" + added + "delete-login-profile " + user,
			"MFA device cast-kops-prod.example.com/phone" + added + "deactivate-mfa-device " + user + " --serial-number arn:aws:iam::123456789012:mfa/phone",
			"policy CastLambdaRoleForSpot/Mine" + added + "detach-role-policy " + role + " --policy-arn '" + ownPolicy + "a;b/Mine'",
			"policy CastLambdaRoleForSpot/AdministratorAccess" + added + "detach-role-policy " + role + " --policy-arn " + awsPolicy + "AdministratorAccess",
			"inline policy CastLambdaRoleForSpot/All of it" + added + "delete-role-policy " + role + " --policy-name 'All of it'",
			"permissions boundary CastLambdaRoleForSpot/Limit" + added + "delete-role-permissions-boundary " + role,
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", permissions, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestOriginalRights: what the original script has attached is detached, and what is ours needs no review.
func TestOriginalRights(t *testing.T) {
	s := State{RoleName: "CastLambdaRoleForSpot", User: originalUser(),
		Managed: &awsadmin.Policy{Name: "CastKopsPolicyV2", ARN: ownPolicy + "CastKopsPolicyV2"}}
	steps := userRights(testSpec(), s, Files{})
	if got := rowsOf(steps, change.Detach); len(got) != 1 || !strings.HasPrefix(got[0], "policy cast-kops-prod.example.com/AmazonS3ReadOnlyAccess: ") {
		t.Errorf("detached: %q", got)
	}
	if got := rowsOf(steps, change.Review); got != nil {
		t.Errorf("to review: %q", got)
	}
}

// TestNewlyPassableRoles: the plan says in words which roles the user may newly pass.
func TestNewlyPassableRoles(t *testing.T) {
	const teams, spot = "; new: the user may launch instances with the role teams/nodes.prod.example.com (iam:PassRole)",
		"; new: the user may launch instances with the role spot.prod.example.com (iam:PassRole)"
	for old, want := range map[string]string{
		"{}": teams + spot,
		`{"Resource": "arn:aws:iam::123456789012:role/teams/nodes.prod.example.com"}`:                                                           spot,
		`{"Resource": ["arn:aws:iam::123456789012:role/nodes.prod.example.com", "arn:aws:iam::123456789012:role/spot.prod.example.com"]}`:       teams,
		`{"Resource": ["arn:aws:iam::123456789012:role/teams/nodes.prod.example.com", "arn:aws:iam::123456789012:role/spot.prod.example.com"]}`: "",
	} {
		s := State{User: originalUser(), ClusterPolicy: &awsadmin.Policy{Name: "CASTKopsCluster-x", Document: old}}
		steps, err := decide(testSpec(), s, Files{}, nil, nil)
		got := rowsOf(steps, change.Update)
		if err != nil || !slices.ContainsFunc(got, func(row string) bool {
			return strings.HasPrefix(row, "IAM policy CASTKopsCluster-x: ") && strings.HasSuffix(row, "that its user may pass"+want)
		}) {
			t.Errorf("%s: %q, %v; want %q", old, got, err, want)
		}
	}
}

// TestOwners: a user or a role of our name is changed only if it is ours or exactly what the original script creates.
func TestOwners(t *testing.T) {
	ours := iam.Tags("prod.example.com")
	for name, c := range map[string]struct {
		change func(*State)
		want   string // in the error; empty for none
	}{
		"the original's":       {func(*State) {}, ""},
		"the original's today": {func(s *State) { s.User.Attached = s.User.Attached[:3] }, ""},
		"ours":                 {func(s *State) { s.User = &awsadmin.User{Name: "u", Tags: ours} }, ""},
		"ours, with more":      {func(s *State) { s.User.Tags, s.User.Groups = ours, []string{"admins"} }, ""},
		"no user":              {func(s *State) { s.User = nil }, ""},
		"an empty user": {func(s *State) { s.User = &awsadmin.User{Name: "u"} }, "it lacks the policy CASTKopsPolicyV2 and " +
			"lacks the inline policy CASTKopsRestrictedaccess. Somebody else may have created it to get the cluster's permissions: " +
			"delete it or, if you know who uses it, run aws iam tag-user --user-name u --tags Key=" + iam.TagManagedBy +
			",Value=kops-spot Key=" + iam.TagCluster + ",Value=prod.example.com"},
		"a policy":          {func(s *State) { s.User.Attached = append(s.User.Attached, awsPolicy+"AdministratorAccess") }, "it has the policy cast-kops-prod.example.com/AdministratorAccess. "},
		"a group":           {func(s *State) { s.User.Groups = []string{"admins"} }, "it has the group cast-kops-prod.example.com/admins. "},
		"an inline policy":  {func(s *State) { s.User.Inline["all"] = "{}" }, "it has the inline policy cast-kops-prod.example.com/all. "},
		"a password":        {func(s *State) { s.User.Credentials = foreignCredentials[:1] }, "it has the console password cast-kops-prod.example.com. "},
		"a boundary":        {func(s *State) { s.User.Boundary = ownPolicy + "Limit" }, "it has the permissions boundary cast-kops-prod.example.com/Limit. "},
		"a role of ours":    {func(s *State) { s.Role = &awsadmin.Role{Tags: ours} }, ""},
		"a stranger's role": {func(s *State) { s.Role = &awsadmin.Role{Tags: map[string]string{"team": "a"}} }, "run aws iam tag-role --role-name r --tags Key="},
		"a stack's role": {func(s *State) {
			s.Role = &awsadmin.Role{Tags: map[string]string{iam.TagManagedBy: iam.ManagedBy, iam.TagCluster: "prod.example.com", iam.TagStack: "st"}}
		}, "role r belongs to the stack st, which is not the cluster's: it is not changed"},
		"the stack's own role": {func(s *State) {
			s.Role, s.Settings = &awsadmin.Role{Tags: map[string]string{iam.TagManagedBy: iam.ManagedBy, iam.TagCluster: "prod.example.com",
				iam.TagStack: iam.FunctionName("prod.example.com")}}, map[string]string{FunctionRole: "r"}
			s.RoleOwner = "the stack creates it"
		}, ""},
		"a deleted stack's role": {func(s *State) {
			s.Role = &awsadmin.Role{Tags: map[string]string{iam.TagStack: iam.FunctionName("prod.example.com")}}
		}, "which no longer exists: delete the role"},
		"another cluster's role": {func(s *State) {
			s.Role, s.Settings = &awsadmin.Role{Tags: iam.Tags("staging.example.com")}, map[string]string{FunctionRole: testRole}
		}, "role r is tagged with the cluster staging.example.com: it is not changed; choose another role with --set FunctionRole=ARN"},
		"a chosen role": {func(s *State) {
			s.Role, s.Settings = &awsadmin.Role{Tags: map[string]string{"team": "a"}}, map[string]string{FunctionRole: testRole}
		}, ""},
		"a chosen role that does not exist": {func(s *State) {
			s.RoleOwner, s.Settings = "somebody else manages it", map[string]string{FunctionRole: testRole}
		}, "role " + testRole + " does not exist: create it"},
		"another account's role": {func(s *State) {
			s.Settings = map[string]string{FunctionRole: "arn:aws:iam::210987654321:role/r"}
		}, "FunctionRole=arn:aws:iam::210987654321:role/r is not a role of the account 123456789012"},
		"half of the VPC": {func(s *State) { s.Settings = map[string]string{"SecurityGroupIds": "sg-01234567"} }, "set both SubnetIds and SecurityGroupIds"},
		"another's policy users": {func(s *State) {
			s.Managed = &awsadmin.Policy{Name: "p", Document: "{}"}
			s.UntaggedUsers = []string{"a"}
		}, "would remove all its permissions from a, whose tags name no cluster"},
		"unreadable users": {func(s *State) {
			s.Managed = &awsadmin.Policy{Name: "p", Document: "{}"}
			s.UntaggedUsers, s.UnreadableUsers = []string{"a"}, []string{"b", "c"}
		}, "may remove all its permissions from b and c, whose tags you may not read: allow iam:GetUser"},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{User: originalUser(), RoleName: "r"}
			c.change(&s)
			_, err := decide(testSpec(), s, Files{fileOf(iam.ManagedPolicy): []byte(`{"new": true}`)}, nil, nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

const testRole = "arn:aws:iam::123456789012:role/r"

// TestBoundary: the boundary of the settings is set and needs no review; without it, a boundary is somebody else's.
func TestBoundary(t *testing.T) {
	const limit, other = ownPolicy + "limits/Developers", ownPolicy + "Other"
	for _, c := range []struct{ has, wanted, attach, review string }{
		{"", "", "", ""},
		{"", limit, "PermissionsBoundary", ""},
		{limit, limit, "", ""},
		{other, limit, "PermissionsBoundary; it replaces Other", ""},
		{other, "", "", "Other"},
	} {
		ours := awsadmin.Rights{Boundary: c.has}
		s := State{RoleName: "r", Settings: map[string]string{"PermissionsBoundary": c.wanted},
			User: &awsadmin.User{Name: "u", Rights: ours, Tags: iam.Tags("prod.example.com")},
			Role: &awsadmin.Role{Rights: ours, Tags: iam.Tags("prod.example.com")}}
		steps, err := decide(testSpec(), s, Files{}, nil, nil)
		var attach, reviews []string
		for _, step := range steps {
			switch {
			case step.Kind != kindBoundary:
			case step.Verb == change.Review:
				reviews = append(reviews, step.Name)
			default:
				attach = append(attach, step.Name+": "+step.Why)
			}
		}
		both := func(text string) []string {
			if text == "" {
				return nil
			}
			return []string{"u/" + text, "r/" + text}
		}
		want := c.attach
		if want != "" {
			want = "Developers: " + want
		}
		slices.Sort(reviews)
		slices.Reverse(reviews)
		if err != nil || !slices.Equal(attach, both(want)) || !slices.Equal(reviews, both(c.review)) {
			t.Errorf("%+v: attach %q, review %q, %v", c, attach, reviews, err)
		}
	}
}

// TestTags: more tags are added to what is created or lacks them, and never replace those that decide what the user may do.
func TestTags(t *testing.T) {
	w := testSpec()
	w.Tags = map[string]string{"team": "payments", iam.TagCluster: "staging.example.com"}
	want := []string{"+ cast-name=" + iam.Name("prod.example.com"), "+ cast-region=eu-west-1", "+ cast-vpc=vpc-0123456789abcdef0", "+ team=payments"}
	s := State{RoleName: "r", User: &awsadmin.User{Name: "u", Tags: iam.Tags("prod.example.com")}}
	steps, err := decide(w, s, Files{}, nil, nil)
	i := slices.IndexFunc(steps, func(s step) bool { return s.Verb == change.Tag && s.Kind == kindUser && s.Diff != nil })
	if err != nil || i < 0 || !slices.Equal(steps[i].Diff, want) {
		t.Errorf("%+v, %v; want %q", steps, err, want)
	}
	s.Role = &awsadmin.Role{Tags: w.tags(iam.Tags("prod.example.com"))}
	if again := role(w, s, Files{}); len(again) != 1 {
		t.Errorf("tagged again: %+v", again)
	}
}

// TestSecretARNs: the secret of the token replaces earlier ones of its name, and no other.
func TestSecretARNs(t *testing.T) {
	const arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	const old, token, other = arn + "cast-kops/prod.example.com/token-AbCdEf", arn + "cast-kops/prod.example.com/token-GhIjKl", arn + "castai-AbCdEf"
	for parameter, want := range map[string][]string{"": {token}, old: {token}, token: {token}, old + "," + other: {other, token},
		other + ", " + token: {other, token}} {
		if got := SecretARNs(parameter, "prod.example.com", token); !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", parameter, got, want)
		}
	}
}

// TestRolesMadeByUser: offboarding names the roles, and how to delete them.
func TestRolesMadeByUser(t *testing.T) {
	steps := rolesMadeByUser([]awsadmin.Role{{Name: "cast-node-a", Profiles: []string{"cast-node-p"},
		Rights: awsadmin.Rights{Attached: []string{awsPolicy + "AmazonEC2ContainerRegistryReadOnly"}, Inline: map[string]string{"x y": ""}}}})
	want := []string{"  aws iam remove-role-from-instance-profile --instance-profile-name cast-node-p --role-name cast-node-a",
		"  aws iam delete-instance-profile --instance-profile-name cast-node-p",
		"  aws iam detach-role-policy --role-name cast-node-a --policy-arn " + awsPolicy + "AmazonEC2ContainerRegistryReadOnly",
		"  aws iam delete-role-policy --role-name cast-node-a --policy-name 'x y'",
		"  aws iam delete-role --role-name cast-node-a"}
	if len(steps) != 1 || steps[0].Verb != change.Review || !slices.Equal(steps[0].Diff, want) {
		t.Errorf("%+v", steps)
	}
}

// TestRulesOfOriginal: a rule whose target an interrupted run has removed is deleted, and one of somebody else is not.
func TestRulesOfOriginal(t *testing.T) {
	const function, queue = "arn:aws:lambda:eu-west-1:123456789012:function:cast-ai-ec2-events-handler", "arn:aws:sqs:eu-west-1:123456789012:q"
	o := original{function: &awsadmin.Function{ARN: function}}
	for want, targets := range map[string][]awsadmin.Target{
		"change delete": {{ID: "a", ARN: function}},
		"change":        {{ID: "a", ARN: function + ":live"}, {ID: "b", ARN: function + "-2"}},
		"delete":        {},
		"":              {{ID: "b", ARN: queue}},
	} {
		var got []string
		for _, s := range o.removeRule(awsadmin.Rule{Name: "r", Targets: targets}) {
			got = append(got, string(s.Verb))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: %q; want %q", targets, got, want)
		}
	}
}
