package operator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
)

// linkNames are all links in the order in which an event passes them.
var linkNames = []string{"rule", "state", "target", "permission", "function", "role", "network", "authentication", "rbac",
	"preview", "failures", "shutdown", "concurrency"}

// links breaks one link at a time: check reports exactly that link with advice, and no link after the repair.
func links(t *testing.T, w *world) {
	w = w.in(t)
	rule := names.RuleName(cluster, "spot-warning")
	events, functions := eventbridge.NewFromConfig(w.direct), lambda.NewFromConfig(w.direct)
	function := aws.String(names.FunctionName(cluster))
	environment := func(name, value string) func() func() {
		return func() func() { return w.environment(name, value) }
	}
	for _, c := range []struct {
		name, link, says, advice string
		breaks                   func() (repair func())
	}{
		{"a wrong pattern", "rule", "the pattern of rule " + rule + " differs from the template's", "aws events put-rule --name " + rule, func() func() {
			was := must(events.DescribeRule(t.Context(), &eventbridge.DescribeRuleInput{Name: &rule})).EventPattern
			put := func(pattern *string) {
				must(events.PutRule(t.Context(), &eventbridge.PutRuleInput{Name: &rule, EventPattern: pattern}))
			}
			put(aws.String(`{"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Warning"]}`))
			return func() { put(was) }
		}},
		{"a disabled rule", "state", "rule " + rule + " is disabled", "aws events enable-rule --name " + rule, func() func() {
			must(events.DisableRule(t.Context(), &eventbridge.DisableRuleInput{Name: &rule}))
			return func() {
				must(events.EnableRule(t.Context(), &eventbridge.EnableRuleInput{Name: &rule}))
			}
		}},
		{"another target", "target", "rule " + rule + " does not target the function", "aws events put-targets --rule " + rule, func() func() {
			was := must(events.ListTargetsByRule(t.Context(), &eventbridge.ListTargetsByRuleInput{Rule: &rule})).Targets
			put := func(targets ...types.Target) {
				must(events.PutTargets(t.Context(), &eventbridge.PutTargetsInput{Rule: &rule, Targets: targets}))
			}
			put(types.Target{Id: was[0].Id, Arn: aws.String("arn:aws:lambda:" + region + ":" + account + ":function:another")})
			return func() { put(was...) }
		}},
		{"no permission", "permission", "rule " + rule + " is not allowed to invoke the function", "aws lambda add-permission", func() func() {
			var policy struct {
				Statement []struct {
					Sid       string
					Condition map[string]map[string]string
				}
			}
			text := must(functions.GetPolicy(t.Context(), &lambda.GetPolicyInput{FunctionName: function})).Policy
			try(json.Unmarshal([]byte(*text), &policy))
			for _, s := range policy.Statement {
				source := s.Condition["ArnLike"]["AWS:SourceArn"]
				if !strings.HasSuffix(source, "/"+rule) {
					continue
				}
				must(functions.RemovePermission(t.Context(), &lambda.RemovePermissionInput{FunctionName: function, StatementId: &s.Sid}))
				return func() {
					must(functions.AddPermission(t.Context(), &lambda.AddPermissionInput{FunctionName: function, StatementId: &s.Sid,
						Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("events.amazonaws.com"), SourceArn: &source}))
				}
			}
			t.Fatalf("no permission to remove: %s", *text)
			return nil
		}},
		{"an invalid setting", "function", "KOPS_SPOT_FORCE_GRACE: set it to", "aws logs tail", environment("KOPS_SPOT_FORCE_GRACE", "ever")},
		{"another cluster's function", "function", `it is configured for cluster "staging.example.com"`, "kops-spot install", environment("KOPS_SPOT_CLUSTER", otherCluster)},
		{"no role", "role", "role CastLambdaRoleForSpot does not exist", "kops-spot onboard", w.takeRole},
		{"a role for another service", "role", "Lambda cannot assume the role", "lambda.amazonaws.com", func() func() {
			client, role := w.iam(), aws.String(names.FunctionRole)
			was := document(must(client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: role})).Role.AssumeRolePolicyDocument)
			trust := func(text string) {
				must(client.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: role, PolicyDocument: &text}))
			}
			trust(strings.ReplaceAll(was, "lambda.amazonaws.com", "ec2.amazonaws.com"))
			return func() { trust(was) }
		}},
		{"an unreachable endpoint", "network", "connection refused", "KOPS_SPOT_SERVER", environment("KOPS_SPOT_SERVER", "https://127.0.0.1:1")},
		{"a wrong CA", "authentication", "certificate is not trusted", "see the detail", environment("KOPS_SPOT_CA", anotherCA())},
		{"an expired token", "authentication", "rejected the credential (401)", "see the detail", w.expire},
		{"a missing verb", "rbac", "rbac: create pods/eviction", "apply deploy/rbac.yaml", func() func() {
			client := cp().Client().RbacV1().ClusterRoles()
			role := must(client.Get(t.Context(), "kops-spot", metav1.GetOptions{}))
			was := role.DeepCopy().Rules
			role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods/eviction") })
			put := func(rules []rbacv1.PolicyRule) {
				now := must(client.Get(t.Context(), "kops-spot", metav1.GetOptions{}))
				now.Rules = rules
				must(client.Update(t.Context(), now, metav1.UpdateOptions{}))
			}
			put(role.Rules)
			return func() { put(was) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			repair := c.breaks()
			is, stderr, err := w.asJSON("check")
			repair()
			if err == nil || is.First != c.link || !strings.Contains(stderr, "check "+c.link+" failed") {
				t.Fatalf("check reports %q, want %q: %v\n%s", is.First, c.link, err, show(is.Findings))
			}
			for _, f := range is.Findings {
				switch {
				case f.Level == change.Fail && f.Name != c.link:
					t.Errorf("%s failed too: %s", f.Name, f.Detail)
				case f.Level == change.Fail && f.Name == is.First && (!strings.Contains(f.Detail, c.says) || !strings.Contains(f.Advice, c.advice)):
					t.Errorf("got %q with the advice %q, want %q and %q", f.Detail, f.Advice, c.says, c.advice)
				}
			}
		})
	}
	is, _, err := w.asJSON("check")
	var order []string
	for _, f := range is.Findings {
		order = append(order, f.Name)
	}
	if err != nil || !slices.Equal(order, linkNames) {
		t.Errorf("after the repairs: %v, %q\n%s", err, order, show(is.Findings))
	}
	for _, f := range is.Findings {
		if f.Level != change.OK {
			t.Errorf("after the repairs: %s: %s", f.Name, f.Detail)
		}
	}
}

// environment sets a variable of the function until repair is called.
func (w *world) environment(name, value string) (repair func()) {
	w.Helper()
	functions, function := lambda.NewFromConfig(w.direct), aws.String(names.FunctionName(cluster))
	was := must(functions.GetFunctionConfiguration(w.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: function})).Environment.Variables
	set := func(variables map[string]string) {
		must(functions.UpdateFunctionConfiguration(context.Background(), &lambda.UpdateFunctionConfigurationInput{
			FunctionName: function, Environment: &lambdatypes.Environment{Variables: variables}}))
	}
	now := maps.Clone(was)
	now[name] = value
	set(now)
	return func() { set(was) }
}

func show(found change.Findings) string {
	text, _ := json.MarshalIndent(found, "", " ")
	return string(text)
}

// takeRole deletes the function's role. repair creates one with the same name.
func (w *world) takeRole() (repair func()) {
	ctx, client, name := w.Context(), w.iam(), aws.String(names.FunctionRole)
	role := must(client.GetRole(ctx, &iam.GetRoleInput{RoleName: name})).Role
	policies := must(client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: name})).PolicyNames
	for _, p := range policies {
		must(client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: &p}))
	}
	must(client.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}))
	return func() {
		must(client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, Tags: role.Tags, AssumeRolePolicyDocument: aws.String(document(role.AssumeRolePolicyDocument))}))
		for _, p := range policies { // so that the stack can delete them; moto does not evaluate them
			must(client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: &p, PolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}`)}))
		}
	}
}

// expire replaces the function's token with an expired one.
func (w *world) expire() func() {
	client, id := w.secrets(), aws.String(names.SecretName(cluster, "token"))
	was := must(client.GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: id})).SecretString
	put := func(text *string) {
		must(client.UpdateSecret(w.Context(), &secretsmanager.UpdateSecretInput{SecretId: id, SecretString: text}))
	}
	put(aws.String(`{"token": "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln"}`))
	back := w.environment("KOPS_SPOT_FORCE_GRACE", "59s") // starts a new process, which reads the token again
	return func() { put(was); back() }
}

// anotherCA returns a CA that did not sign the API server's certificate.
func anotherCA() string {
	another := httptest.NewTLSServer(nil)
	defer another.Close()
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: another.Certificate().Raw}))
}
