package install

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

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

// chained are all links, in the order in which an event goes through them.
var chained = []string{"rule", "state", "target", "permission", "function", "role", "network", "log-in", "rbac", "preview", "outcomes", "concurrency"}

// links breaks one link after the other: the check names exactly that one, and what to do, and after it is mended none. A rule
// that is not there is named before anything is installed.
func links(t *testing.T) {
	rule := names.RuleName(cluster, "spot-warning")
	events, functions := eventbridge.NewFromConfig(world.aws), lambda.NewFromConfig(world.aws)
	function := aws.String(names.FunctionName(cluster))
	environment := func(change map[string]string) func(t *testing.T) func() {
		return func(t *testing.T) func() {
			was := get[*lambda.GetFunctionConfigurationOutput](t)(functions.GetFunctionConfiguration(t.Context(), &lambda.GetFunctionConfigurationInput{FunctionName: function})).Environment.Variables
			now := maps.Clone(was)
			maps.Copy(now, change)
			set := func(variables map[string]string) {
				get[*lambda.UpdateFunctionConfigurationOutput](t)(functions.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
					FunctionName: function, Environment: &lambdatypes.Environment{Variables: variables}}))
			}
			set(now)
			return func() { set(was) }
		}
	}
	for _, c := range []struct {
		name, link, says, advice string
		breaks                   func(t *testing.T) (mend func())
	}{
		{"a wrong pattern", "rule", "the pattern of rule " + rule + " is not the template's", "aws events put-rule --name " + rule, func(t *testing.T) func() {
			was := get[*eventbridge.DescribeRuleOutput](t)(events.DescribeRule(t.Context(), &eventbridge.DescribeRuleInput{Name: &rule})).EventPattern
			put := func(pattern *string) {
				get[*eventbridge.PutRuleOutput](t)(events.PutRule(t.Context(), &eventbridge.PutRuleInput{Name: &rule, EventPattern: pattern}))
			}
			put(aws.String(`{"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Warning"]}`))
			return func() { put(was) }
		}},
		{"a disabled rule", "state", "rule " + rule + " is disabled", "aws events enable-rule --name " + rule, func(t *testing.T) func() {
			get[*eventbridge.DisableRuleOutput](t)(events.DisableRule(t.Context(), &eventbridge.DisableRuleInput{Name: &rule}))
			return func() {
				get[*eventbridge.EnableRuleOutput](t)(events.EnableRule(t.Context(), &eventbridge.EnableRuleInput{Name: &rule}))
			}
		}},
		{"another target", "target", "rule " + rule + " does not send its events to the function", "aws events put-targets --rule " + rule, func(t *testing.T) func() {
			was := get[*eventbridge.ListTargetsByRuleOutput](t)(events.ListTargetsByRule(t.Context(), &eventbridge.ListTargetsByRuleInput{Rule: &rule})).Targets
			put := func(targets ...types.Target) {
				get[*eventbridge.PutTargetsOutput](t)(events.PutTargets(t.Context(), &eventbridge.PutTargetsInput{Rule: &rule, Targets: targets}))
			}
			put(types.Target{Id: was[0].Id, Arn: aws.String("arn:aws:lambda:" + region + ":" + account + ":function:another")})
			return func() { put(was...) }
		}},
		{"no permission", "permission", "the function does not let rule " + rule + " invoke it", "aws lambda add-permission", func(t *testing.T) func() {
			var policy struct {
				Statement []struct {
					Sid       string
					Condition map[string]map[string]string
				}
			}
			text := get[*lambda.GetPolicyOutput](t)(functions.GetPolicy(t.Context(), &lambda.GetPolicyInput{FunctionName: function})).Policy
			if err := json.Unmarshal([]byte(*text), &policy); err != nil {
				t.Fatal(err)
			}
			for _, s := range policy.Statement {
				source := s.Condition["ArnLike"]["AWS:SourceArn"]
				if !strings.HasSuffix(source, "/"+rule) {
					continue
				}
				get[*lambda.RemovePermissionOutput](t)(functions.RemovePermission(t.Context(), &lambda.RemovePermissionInput{FunctionName: function, StatementId: &s.Sid}))
				return func() {
					get[*lambda.AddPermissionOutput](t)(functions.AddPermission(t.Context(), &lambda.AddPermissionInput{FunctionName: function, StatementId: &s.Sid,
						Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("events.amazonaws.com"), SourceArn: &source}))
				}
			}
			t.Fatalf("there is no permission to take away: %s", *text)
			return nil
		}},
		{"a setting that is refused", "function", "KOPS_SPOT_RESERVE: set it to", "aws logs tail", environment(map[string]string{"KOPS_SPOT_RESERVE": "ever"})},
		{"another cluster's function", "function", `it works for the cluster "staging.example.com"`, "kops-spot install", environment(map[string]string{"KOPS_SPOT_CLUSTER": "staging.example.com"})},
		{"no role", "role", "there is no role CastLambdaRoleForSpot", "kops-spot onboard", func(t *testing.T) func() {
			return takeRole(t, iam.NewFromConfig(world.aws))
		}},
		{"another's role", "role", "Lambda may not take the role", "lambda.amazonaws.com", func(t *testing.T) func() {
			client, role := iam.NewFromConfig(world.aws), aws.String(names.FunctionRole)
			trust := func(service string) {
				get[*iam.UpdateAssumeRolePolicyOutput](t)(client.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: role, PolicyDocument: aws.String(
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`)}))
			}
			trust("ec2.amazonaws.com")
			return func() { trust("lambda.amazonaws.com") }
		}},
		{"an endpoint that cannot be reached", "network", "connection refused", "KOPS_SPOT_SERVER", environment(map[string]string{"KOPS_SPOT_SERVER": "https://127.0.0.1:1"})},
		{"a wrong CA", "log-in", "certificate is not what we were told to expect", "the detail says", environment(map[string]string{"KOPS_SPOT_CA": anotherCA(t)})},
		{"an expired token", "log-in", "does not accept the credential (401)", "the detail says", func(t *testing.T) func() {
			return expire(t, environment(map[string]string{"KOPS_SPOT_PARALLEL": "49"})) // and so a new process, that has not read it yet
		}},
		{"a verb that is missing", "rbac", "rbac: create pods/eviction", "apply deploy/rbac.yaml", func(t *testing.T) func() {
			client := world.cp.Client().RbacV1().ClusterRoles()
			role := get[*rbacv1.ClusterRole](t)(client.Get(t.Context(), "kops-spot", metav1.GetOptions{}))
			was := role.DeepCopy().Rules
			role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods/eviction") })
			put := func(rules []rbacv1.PolicyRule) {
				now := get[*rbacv1.ClusterRole](t)(client.Get(t.Context(), "kops-spot", metav1.GetOptions{}))
				now.Rules = rules
				get[*rbacv1.ClusterRole](t)(client.Update(t.Context(), now, metav1.UpdateOptions{}))
			}
			put(role.Rules)
			return func() { put(was) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mend := c.breaks(t)
			is, stderr, err := asJSON(t, "check")
			mend()
			if err == nil || is.First != c.link || !strings.Contains(stderr, c.link+" is broken") {
				t.Fatalf("the check names %q, want %q: %v\n%s", is.First, c.link, err, show(is.Findings))
			}
			for _, f := range is.Findings {
				switch {
				case f.Level == change.Fail && f.Name != c.link:
					t.Errorf("%s is said to be broken too: %s", f.Name, f.Detail)
				case f.Level == change.Fail && f.Name == is.First && (!strings.Contains(f.Detail, c.says) || !strings.Contains(f.Advice, c.advice)):
					t.Errorf("it says %q and advises %q, want %q and %q", f.Detail, f.Advice, c.says, c.advice)
				}
			}
		})
	}
	is, _, err := asJSON(t, "check")
	var order []string
	for _, f := range is.Findings {
		order = append(order, f.Name)
	}
	if err != nil || !slices.Equal(order, chained) {
		t.Errorf("when all is mended: %v, %q\n%s", err, order, show(is.Findings))
	}
	for _, f := range is.Findings {
		if f.Level != change.OK {
			t.Errorf("when all is mended: %s: %s", f.Name, f.Detail)
		}
	}
}

func show(found change.Findings) string {
	text, _ := json.MarshalIndent(found, "", " ")
	return string(text)
}

// takeRole takes the function's role away, and brings one of its name back.
func takeRole(t *testing.T, client *iam.Client) func() {
	role := aws.String(names.FunctionRole)
	was := get[*iam.ListRolePoliciesOutput](t)(client.ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: role})).PolicyNames
	for _, name := range was {
		get[*iam.DeleteRolePolicyOutput](t)(client.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: role, PolicyName: &name}))
	}
	get[*iam.DeleteRoleOutput](t)(client.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: role}))
	return func() {
		get[*iam.CreateRoleOutput](t)(client.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: role, AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
		for _, name := range was { // so that the stack can take them away again; what they say moto does not ask
			get[*iam.PutRolePolicyOutput](t)(client.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: role, PolicyName: &name, PolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}`)}))
		}
	}
}

// expire puts a token of another time where the function looks for its own.
func expire(t *testing.T, restart func(t *testing.T) func()) func() {
	client, id := secretsmanager.NewFromConfig(world.aws), aws.String(names.SecretName(cluster, "token"))
	was := get[*secretsmanager.GetSecretValueOutput](t)(client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: id})).SecretString
	put := func(text *string) {
		get[*secretsmanager.UpdateSecretOutput](t)(client.UpdateSecret(t.Context(), &secretsmanager.UpdateSecretInput{SecretId: id, SecretString: text}))
	}
	put(aws.String(`{"token": "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln"}`))
	back := restart(t)
	return func() { put(was); back() }
}

// anotherCA is nobody's that the API server knows.
func anotherCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
