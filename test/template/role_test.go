package template

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// TestRoleMatchesDocuments: the role in the template has the same statements as iam/ for the same values, so the proofs
// in test/iam hold for both.
func TestRoleMatchesDocuments(t *testing.T) {
	bare := iam.Values{Partition: "aws", Region: Region, Account: Account, Cluster: cluster}
	// Both are always allowed, so that NotifyEmail changes only the destination: Lambda checks the role at that moment.
	bare.Queues = []string{bare.QueueARN(iam.Failures)}
	for set, c := range map[string]struct {
		role      string
		boundary  any
		values    func(*iam.Values)
		documents []iam.Document
	}{
		byDefault: {iam.FunctionRole, nil, func(*iam.Values) {}, []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy}},
		everything: {"CastLambdaRoleForSpot-2", boundary, func(v *iam.Values) {
			v.Secrets = []string{secretARN + "token-a1B2c3", secretARN + "castai-d4E5f6"}
			v.Parameters, v.Keys = []string{parameterARN + "ca"}, []string{keyARN}
			v.Subnets = []string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"}
			v.SecurityGroups = []string{"sg-0123456789abcdef0", "sg-0123456789abcdef1"}
		}, []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy}},
		inVPC: {"CastLambdaRoleForSpot-4", nil, func(v *iam.Values) {
			v.Subnets, v.SecurityGroups = []string{"subnet-01234567"}, []string{"sg-01234567"}
		}, []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy}},
	} {
		t.Run(set, func(t *testing.T) {
			values := bare
			c.values(&values)
			s := stack(t, set)
			if got := s.Resources["SpotHandlerFunction"].Properties["Role"]; got != "arn:aws:iam::"+Account+":role/"+c.role {
				t.Errorf("the function's role is %v", got)
			}
			var policies []any
			for _, d := range c.documents {
				policies = append(policies,
					map[string]any{"PolicyName": d.Name, "PolicyDocument": rendered(t, d, values)})
			}
			for property, want := range map[string]any{"RoleName": c.role, "Policies": policies,
				"ManagedPolicyArns":        nil,
				"PermissionsBoundary":      c.boundary,
				"AssumeRolePolicyDocument": rendered(t, iam.Trust, values)} {
				if got := s.Resources["SpotHandlerRole"].Properties[property]; !reflect.DeepEqual(got, want) {
					g, _ := json.MarshalIndent(got, "", "  ")
					w, _ := json.MarshalIndent(want, "", "  ")
					t.Errorf("%s in the template:\n%s\nin iam/:\n%s", property, g, w)
				}
			}
		})
	}
}

// TestExistingRole: the stack creates no role or policy.
func TestExistingRole(t *testing.T) {
	s := stack(t, nothing)
	for id, resource := range s.Resources {
		if strings.HasPrefix(resource.Type, "AWS::IAM::") {
			t.Errorf("the stack creates %s, a %s", id, resource.Type)
		}
	}
	if got := s.Resources["SpotHandlerFunction"].Properties["Role"]; got != existingRole {
		t.Errorf("the function's role is %v", got)
	}
	if got := s.Outputs["FunctionRoleArn"].Value; got != existingRole {
		t.Errorf("the output FunctionRoleArn is %v", got)
	}
}

func rendered(t *testing.T, d iam.Document, values iam.Values) (document any) {
	t.Helper()
	text, err := iam.Render(d, values)
	if err == nil {
		err = json.Unmarshal(text, &document)
	}
	must(t, err)
	return document
}
