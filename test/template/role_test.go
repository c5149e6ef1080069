package template

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// TestTheRoleMayWhatTheDocumentsSay: what CloudFormation makes of the role is what onboarding makes of iam/ for the
// same values. So what is proven of that holds for both.
func TestTheRoleMayWhatTheDocumentsSay(t *testing.T) {
	bare := iam.Values{Partition: "aws", Region: Region, Account: Account, Cluster: cluster}
	for set, c := range map[string]struct {
		role      string
		values    func(*iam.Values)
		documents []iam.Document
	}{
		byDefault: {iam.FunctionRole, func(v *iam.Values) { v.Queues = []string{bare.QueueARN(iam.Outcomes), bare.QueueARN(iam.Failures)} },
			[]iam.Document{iam.HandlerPolicy, iam.RuntimePolicy}},
		everything: {"CastLambdaRoleForSpot-2", func(v *iam.Values) {
			v.Queues = []string{bare.QueueARN(iam.Failures)}
			v.Topics = []string{bare.TopicARN(iam.Outcomes)}
			v.Secrets = []string{secretARN + "token-a1B2c3", secretARN + "castai-d4E5f6"}
			v.Parameters, v.Keys = []string{parameterARN + "ca"}, []string{keyARN}
			v.Subnets = []string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"}
			v.SecurityGroups = []string{"sg-0123456789abcdef0", "sg-0123456789abcdef1"}
		}, []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy}},
		inVPC: {"CastLambdaRoleForSpot-4", func(v *iam.Values) {
			v.Queues = []string{bare.QueueARN(iam.Outcomes), bare.QueueARN(iam.Failures)}
			v.Subnets, v.SecurityGroups = []string{"subnet-01234567"}, []string{"sg-01234567"}
		}, []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy}},
	} {
		t.Run(set, func(t *testing.T) {
			values := bare
			c.values(&values)
			s := stack(t, set)
			role := s.Resources["FunctionRole"].Properties
			if role["RoleName"] != c.role {
				t.Errorf("the role is called %v", role["RoleName"])
			}
			if got := s.Resources["SpotHandlerFunction"].Properties["Role"]; got != "arn:aws:iam::"+Account+":role/"+c.role {
				t.Errorf("the function's role is %v", got)
			}
			equalDocument(t, role["AssumeRolePolicyDocument"], iam.Trust, values)
			policies := role["Policies"].([]any)
			if len(policies) != len(c.documents) || role["ManagedPolicyArns"] != nil {
				t.Fatalf("the role has %d policies of its own and the managed ones %v; want %v", len(policies), role["ManagedPolicyArns"], c.documents)
			}
			for i, document := range c.documents {
				policy := policies[i].(map[string]any)
				if policy["PolicyName"] != document.Name {
					t.Errorf("policy %d is called %v, want %s", i, policy["PolicyName"], document.Name)
				}
				equalDocument(t, policy["PolicyDocument"], document, values)
			}
		})
	}
}

// TestARoleThatIsThereIsTakenAsItIs: nothing is made beside it.
func TestARoleThatIsThereIsTakenAsItIs(t *testing.T) {
	s := stack(t, nothing)
	for id, resource := range s.Resources {
		if strings.HasPrefix(resource.Type, "AWS::IAM::") {
			t.Errorf("%s is made, a %s", id, resource.Type)
		}
	}
	if got := s.Resources["SpotHandlerFunction"].Properties["Role"]; got != existingRole {
		t.Errorf("the function's role is %v", got)
	}
	if got := s.Outputs["FunctionRoleArn"].Value; got != existingRole {
		t.Errorf("the output FunctionRoleArn is %v", got)
	}
}

func equalDocument(t *testing.T, got any, document iam.Document, values iam.Values) {
	t.Helper()
	rendered, err := iam.Render(document, values)
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal(rendered, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("%s in the template:\n%s\nin iam/:\n%s", document.Name, g, rendered)
	}
}
