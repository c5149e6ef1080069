package operator

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

var emptyZip = []byte("PK\x05\x06" + strings.Repeat("\x00", 18))

const originalName = "cast-ai-ec2-events-handler"

// originalFunction creates the function that kops-spot replaces, with its role and two rules, one of which has another
// target too.
func (w *world) originalFunction() {
	w.Helper()
	ctx := w.Context()
	must(w.iam().CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("CastLambdaRoleForSpot"), Tags: tagsOf("cast:managed-by", "cast.ai"),
		AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}))
	must(w.iam().AttachRolePolicy(ctx, &awsiam.AttachRolePolicyInput{RoleName: aws.String("CastLambdaRoleForSpot"), PolicyArn: aws.String("arn:aws:iam::aws:policy/CloudWatchLogsFullAccess")}))
	f := must(lambda.NewFromConfig(w.direct).CreateFunction(ctx, &lambda.CreateFunctionInput{FunctionName: aws.String(originalName), Runtime: lambdatypes.RuntimeProvidedal2,
		Handler: aws.String("x"), Role: aws.String("arn:aws:iam::" + w.account + ":role/CastLambdaRoleForSpot"), Code: &lambdatypes.FunctionCode{ZipFile: emptyZip}}))
	events := eventbridge.NewFromConfig(w.direct)
	targets := []eventtypes.Target{{Id: aws.String("a"), Arn: f.FunctionArn}, {Id: aws.String("b"), Arn: aws.String("arn:aws:sqs:" + region + ":" + w.account + ":q")}}
	for n, rule := range []string{"cast-ai-spot", "cast-ai-shared"} {
		arn := must(events.PutRule(ctx, &eventbridge.PutRuleInput{Name: &rule, EventPattern: aws.String(`{"source":["aws.ec2"]}`)})).RuleArn
		must(lambda.NewFromConfig(w.direct).AddPermission(ctx, &lambda.AddPermissionInput{FunctionName: aws.String(originalName), StatementId: &rule,
			Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("events.amazonaws.com"), SourceArn: arn}))
		must(events.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: &rule, Targets: targets[:n+1]}))
	}
}

func TestOriginalRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.originalFunction()
	r := w.onboard(cluster, node, nil)
	if f, err := onboard.Original(t.Context(), r.AWS); err != nil || f == nil {
		t.Errorf("original not found: %v", err)
	}
	own := of(w.snapshot(), "role "+iam.FunctionRoleName(cluster), "user "+iam.UserName(cluster))
	if len(own) == 0 {
		t.Fatal("the role of the original function was taken over")
	}

	p := must(r.PlanOriginal(t.Context()))
	find(t, p.Changes, change.Delete, originalName)
	find(t, p.Changes, change.Delete, "cast-ai-spot")
	if shared := find(t, p.Changes, change.Update, "cast-ai-shared"); !strings.Contains(shared.Why, ":q stays") {
		t.Errorf("the shared rule: %s", shared.Why)
	}
	find(t, p.Changes, change.Delete, "CastLambdaRoleForSpot")
	w.Reset()
	try(r.Apply(t.Context(), p))
	if wrote := w.Written(); wrote[len(wrote)-1] != "lambda:DeleteFunction" {
		t.Errorf("the function, which identifies the rest, was not deleted last: %q", wrote)
	}
	events := eventbridge.NewFromConfig(w.direct)
	rules := must(events.ListRules(t.Context(), &eventbridge.ListRulesInput{})).Rules
	if len(rules) != 1 || *rules[0].Name != "cast-ai-shared" {
		t.Errorf("remaining rules: %v", rules)
	}
	if now := of(w.snapshot(), "role "+iam.FunctionRoleName(cluster), "user "+iam.UserName(cluster)); !slices.Equal(own, now) {
		t.Errorf("kops-spot's resources changed: %q", now)
	}
	if left := of(w.snapshot(), "role CastLambdaRoleForSpot"); len(left) > 0 {
		t.Errorf("its role still exists: %q", left)
	}
	if p := must(r.PlanOriginal(t.Context())); !p.Changes.Empty() {
		t.Errorf("the second removal is not empty: %+v", p.Changes)
	}
}

func TestRoleInUseIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	r := w.onboard(cluster, node, nil)
	must(lambda.NewFromConfig(w.direct).CreateFunction(t.Context(), &lambda.CreateFunctionInput{FunctionName: aws.String(iam.FunctionName(cluster)), Runtime: lambdatypes.RuntimeProvidedal2,
		Handler: aws.String("x"), Role: aws.String("arn:aws:iam::" + w.account + ":role/CastLambdaRoleForSpot"), Code: &lambdatypes.FunctionCode{ZipFile: emptyZip}}))
	p := must(r.PlanRemoval(t.Context()))
	if left := find(t, p.Changes, change.Leave, "CastLambdaRoleForSpot"); !strings.Contains(left.Why, iam.FunctionName(cluster)+" runs with it") {
		t.Errorf("no reason why the role stays: %s", left.Why)
	}
}
