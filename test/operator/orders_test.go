package operator

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

// stackOfRole has the role as template.yaml has it.
const stackOfRole = `
Parameters:
  FunctionRole: {Type: String, Default: CastLambdaRoleForSpot}
  SecretArns: {Type: String, Default: ''}
Conditions:
  RoleIsMade: !Not [!Equals [arn, !Select [0, !Split [':', !Ref FunctionRole]]]]
Resources:
  Queue: {Type: AWS::SQS::Queue}
  SpotHandlerRole:
    Type: AWS::IAM::Role
    Condition: RoleIsMade
    Properties:
      RoleName: !Ref FunctionRole
      AssumeRolePolicyDocument: {Version: '2012-10-17', Statement: []}
      Tags: [{Key: cast:managed-by, Value: kops-spot}, {Key: cast-cluster, Value: prod.example.com}, {Key: cast:stack, Value: !Ref AWS::StackName}]
`

// orders runs the commands in an account without a cluster and without SAM, so that a table of orders is cheap;
// installAndUninstall runs some of them as a person does.
type orders struct {
	*world
	node string
	set  map[string]string
}

func (o orders) onboarding() *onboard.Onboarding {
	return o.run(cluster, o.node, func(w *onboard.Spec) {
		w.Set = maps.Clone(o.set)
		w.Environment.Account = o.account
	})
}

// step runs a command, and reports whether it has written to the account other than by its stack.
func (o orders) step(command string) bool {
	o.Helper()
	r, stacks, name := o.onboarding(), cloudformation.NewFromConfig(o.direct), aws.String(iam.FunctionName(cluster))
	plan := map[string]func() (onboard.Plan, error){
		"onboard":           func() (onboard.Plan, error) { return r.Plan(o.Context()) },
		"install --onboard": func() (onboard.Plan, error) { return r.Plan(o.Context()) },
		"offboard":          func() (onboard.Plan, error) { return r.PlanRemoval(o.Context()) },
		"uninstall":         func() (onboard.Plan, error) { return r.PlanAccessRemoval(o.Context()) },
	}[command]
	if plan == nil {
		plan = func() (onboard.Plan, error) { return r.PlanAccess(o.Context()) }
	}
	o.Reset()
	p := must(plan())
	if command == "uninstall" {
		must(stacks.DeleteStack(o.Context(), &cloudformation.DeleteStackInput{StackName: name}))
	}
	try(r.Apply(o.Context(), p))
	if strings.HasPrefix(command, "install") && p.State.Settings[onboard.FunctionRole] == "" {
		parameters := map[string]string{onboard.FunctionRole: r.Spec.RoleParameter(p.State, command != "install")}
		maps.Copy(parameters, o.set)
		in := cloudformation.CreateStackInput{StackName: name, TemplateBody: aws.String(stackOfRole)}
		for key, value := range parameters {
			in.Parameters = append(in.Parameters, cfntypes.Parameter{ParameterKey: &key, ParameterValue: &value})
		}
		must(stacks.CreateStack(o.Context(), &in))
	}
	return len(o.Written()) > 0
}

// roles returns the cluster's roles for its function.
func (o orders) roles() (names []string) {
	o.Helper()
	for _, r := range must(o.iam().ListRoles(o.Context(), &awsiam.ListRolesInput{})).Roles {
		tags := must(o.iam().ListRoleTags(o.Context(), &awsiam.ListRoleTagsInput{RoleName: r.RoleName})).Tags
		if slices.ContainsFunc(tags, func(t types.Tag) bool { return *t.Key == iam.TagCluster && *t.Value == cluster }) {
			names = append(names, *r.RoleName)
		}
	}
	return names
}

// TestOrders: in whichever order the commands run, the cluster has one role, with which the function runs and which its
// user may pass. A second run changes nothing, and the removal leaves nothing.
func TestOrders(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"install", "onboard", "install, onboard", "onboard, install", "grant, install, onboard",
		"grant, onboard, install", "install --onboard", "install, install --onboard", "onboard, install --onboard",
		"second: install, onboard", "second: onboard, install", "second: install --onboard"} {
		t.Run(order, func(t *testing.T) {
			w := newWorld(t)
			o, want := orders{w, w.cluster(cluster), map[string]string{"SecretArns": "arn:aws:secretsmanager:" + region + ":" + w.account +
				":secret:castai-AbCdEf"}}, iam.FunctionRole
			order, second := strings.CutPrefix(order, "second: ")
			if second {
				w.onboard(otherCluster, w.cluster(otherCluster), nil)
				want = iam.FunctionRoleName(cluster)
			}
			before := w.snapshot()
			commands, onboarded := strings.Split(order, ", "), strings.Contains(order, "onboard")
			for _, again := range []bool{false, true} {
				for _, command := range commands {
					if wrote := o.step(command); wrote && again {
						t.Errorf("the second %s wrote %q", command, o.Written())
					}
				}
			}
			passes := func() bool {
				policy := of(w.snapshot(), "policy "+iam.Values{Cluster: cluster}.PolicyName(iam.ClusterPolicy))
				return slices.ContainsFunc(policy, func(line string) bool { // in the default version
					return strings.Contains(line, " true ") && strings.Contains(line, "role/"+want+`"`)
				})
			}
			if got := o.roles(); !slices.Equal(got, []string{want}) || passes() != onboarded {
				t.Errorf("roles %q, and the user may pass it: %t; want %s", got, passes(), want)
			}
			// Another cluster may get the name of a role that the stack has created.
			made := slices.DeleteFunc(commands, func(c string) bool { return c == "grant" })[0] == "install"
			o.step("uninstall")
			if got := len(o.roles()) == 1; got == made || onboarded && passes() == made {
				t.Errorf("after uninstall: roles %q, the user may pass it: %t", o.roles(), passes())
			}
			if onboarded {
				o.step("onboard")
				if got := o.roles(); !slices.Equal(got, []string{want}) || !passes() {
					t.Errorf("onboarded again: roles %q; want %s", got, want)
				}
				o.step("offboard")
			}
			w.unchanged("after the removal", before)
		})
	}
}

// TestForeignStacks: onboarding takes over no role of another stack, and says what to do.
func TestForeignStacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := orders{w, w.cluster(cluster), nil}
	own := aws.String(iam.FunctionRoleName(cluster))
	must(w.iam().CreateRole(t.Context(), &awsiam.CreateRoleInput{RoleName: own, AssumeRolePolicyDocument: everything,
		Tags: append(append(tagsOf(iam.TagManagedBy, iam.ManagedBy), tagsOf(iam.TagCluster, cluster)...), tagsOf(iam.TagStack, "other")...)}))
	if _, err := o.onboarding().Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "belongs to the stack other") {
		t.Errorf("not refused: %v", err)
	}
	must(w.iam().DeleteRole(t.Context(), &awsiam.DeleteRoleInput{RoleName: own}))
	o.step("install")
	r := o.onboarding()
	r.Spec.Permissions = onboard.Guide
	if _, err := r.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "kops-spot install --onboard --permissions guide") {
		t.Errorf("--permissions guide for the stack's role: %v", err)
	}
	left := find(t, must(o.onboarding().Plan(t.Context())).Changes, change.Leave, iam.FunctionRole)
	if !strings.Contains(left.Why, "creates it with its policies") {
		t.Errorf("the reason to leave it: %s", left.Why)
	}
}

// TestRoleLacksPermissions: an onboarded role must have what the settings need, since the stack cannot give it.
func TestRoleLacksPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := orders{w, w.cluster(cluster), nil}
	lacks := func() string {
		t.Helper()
		r := o.onboarding()
		p := must(r.PlanAccess(t.Context()))
		found := must(r.Spec.CheckRole(p.State, p.Login))
		if len(found) == 0 {
			return ""
		}
		return found[0].Detail
	}
	arn := func(service, resource string) string {
		return "arn:aws:" + service + ":" + region + ":" + w.account + ":" + resource
	}
	o.step("onboard")
	for name, value := range map[string]string{"SecretArns": arn("secretsmanager", "secret:castai-AbCdEf"), "ParameterArns": arn("ssm", "parameter/ca"),
		"KeyArns": arn("kms", "key/0f0e0d0c-1111-2222-3333-444455556666"), "SubnetIds": "subnet-01234567"} {
		o.set = map[string]string{name: value}
		if name == "SubnetIds" {
			o.set["SecurityGroupIds"] = "sg-01234567"
		}
		if got := lacks(); !strings.Contains(got, value) {
			t.Errorf("%s: the role lacks %q; want %s", name, got, value)
		}
		o.step("onboard")
		if got := lacks(); got != "" {
			t.Errorf("%s: onboarded again, the role lacks %q", name, got)
		}
	}
}

// installWithOnboarding: one plan onboards and deploys, whichever write it is interrupted at, and the other commands
// find nothing to change. If the stack has created the role, onboarding leaves it there.
func installWithOnboarding(t *testing.T) {
	w := home(t)
	before := w.snapshot()
	both := installed("--onboard", "--tag", "team=payments", "--yes")
	interruptions := 0
	for ; interruptions < 60; interruptions++ {
		// TestInterruptedRotation covers a key that is created without a response.
		action, _ := w.interruptWrite(1, func(action string) bool {
			return action != "iam:CreateAccessKey" && len(carried("install", []string{action})) > 0
		}, both...)
		if action == "" {
			break
		}
		w.untagBucket(action)
	}
	if interruptions < 20 {
		t.Errorf("only %d interruptions", interruptions)
	}
	whole := w.snapshot()
	for line, want := range map[string]int{"role CastLambdaRoleForSpot trusts": 1, "role CastLambdaRoleForSpot tag team=payments": 1,
		"role CastLambdaRoleForSpot-": 0, "user " + iam.UserName(cluster) + " tag team=payments": 1, "bucket cast-kops-code-" + account + "-" + region + " tag team=payments": 1,
		"function " + iam.FunctionName(cluster) + " arn:aws:iam::" + account + ":role/CastLambdaRoleForSpot ": 1} {
		if got := len(slices.DeleteFunc(slices.Clone(whole), func(one string) bool { return !strings.HasPrefix(one, line) })); got != want {
			t.Errorf("%d lines %q; want %d:\n%s", got, line, want, strings.Join(whole, "\n"))
		}
	}
	w.readsItsToken()
	w.Reset()
	w.mustRun("onboard", "--yes")
	if wrote := w.Written(); len(wrote) > 0 {
		t.Errorf("onboard wrote %q", wrote)
	}
	if _, stderr, err := w.command(installed("--set", "SecretArns=arn:aws:secretsmanager:"+region+":"+account+":secret:castai-AbCdEf",
		"--yes")...); err == nil ||
		!strings.Contains(stderr, "lacks secretsmanager:GetSecretValue on") || !strings.Contains(stderr, "kops-spot install --onboard") {
		t.Errorf("a secret that the onboarded role may not read: %v\n%s", err, stderr)
	}
	w.unchanged("after the refusal", whole)
	w.quiet()
	w.mustRun("uninstall", "--yes")
	w.mustRun("offboard", "--yes")
	w.unchanged("after the removal", before)

	w.mustRun(installed("--yes")...)
	w.readsItsToken()
	token := aws.String(iam.SecretName(cluster, "token"))
	must(w.secrets().DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: token, ForceDeleteWithoutRecovery: aws.Bool(true)}))
	w.mustRun(installed("--onboard", "--yes")...)
	w.readsItsToken() // by its new ARN
	w.mustRun("offboard", "--yes")
	w.mustRun("check")
	w.quiet()
	w.mustRun("uninstall", "--yes")
	w.unchanged("after the removal of the stack with its role", before)
}
