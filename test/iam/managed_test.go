package iam_test

import "encoding/json"

// managedByAWS are AWS managed policies as documented (AWS Managed Policy Reference, versions of February 2026). AWS
// can change them at any time. The tests prove their claims only for these versions.
var managedByAWS = map[string]json.RawMessage{
	"AmazonEC2ReadOnlyAccess": allow("ec2:Describe*", "ec2:GetSecurityGroupsForVpc", "elasticloadbalancing:Describe*",
		"cloudwatch:ListMetrics", "cloudwatch:GetMetricStatistics", "cloudwatch:Describe*", "autoscaling:Describe*"),
	"IAMReadOnlyAccess": allow("iam:GenerateCredentialReport", "iam:GenerateServiceLastAccessedDetails", "iam:Get*",
		"iam:List*", "iam:SimulateCustomPolicy", "iam:SimulatePrincipalPolicy"),
	"CloudWatchLogsFullAccess": allow("logs:*", "cloudwatch:GenerateQuery", "cloudwatch:GenerateQueryResultsSummary",
		"observabilityadmin:GetS3TableIntegration", "observabilityadmin:ListS3TableIntegrations",
		"observabilityadmin:ListTelemetryPipelines"),
	"service-role/AWSLambdaRole": allow("lambda:InvokeFunction"),
	"AdministratorAccess":        allow("*"),
}

// allow returns a policy that allows actions on everything.
func allow(actions ...string) json.RawMessage {
	text, err := json.Marshal(map[string]any{
		"Version":   "2012-10-17",
		"Statement": []any{map[string]any{"Effect": "Allow", "Action": actions, "Resource": "*"}},
	})
	if err != nil {
		panic(err)
	}
	return text
}
