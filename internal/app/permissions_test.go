package app

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/aws"
)

// TestRoleActions: the role allows exactly the actions that the code can call.
func TestRoleActions(t *testing.T) {
	var called []string
	for _, ops := range aws.Operations() {
		for _, op := range ops {
			if op != "sts:GetCallerIdentity" { // AWS: no permission is needed for it, and none can deny it
				called = append(called, op)
			}
		}
	}
	var allowed []string
	for _, s := range statements(t) {
		allowed = append(allowed, s.Action...)
	}
	slices.Sort(called)
	slices.Sort(allowed)
	if called = slices.Compact(called); !slices.Equal(called, allowed) {
		t.Errorf("the code can call %v\nthe document allows %v", called, allowed)
	}
}

// TestWritesAreScoped: every action that changes something requires the cluster's tag, on resources of one account and
// region.
func TestWritesAreScoped(t *testing.T) {
	for _, s := range statements(t) {
		for _, action := range s.Action {
			switch action {
			case "ec2:CreateTags", "autoscaling:DetachInstances", "autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:CompleteLifecycleAction":
				if s.Condition["StringEquals"]["aws:ResourceTag/KubernetesCluster"] != "<cluster>" {
					t.Errorf("%s is not scoped to the cluster", action)
				}
				if slices.Contains(s.Resource, "*") {
					t.Errorf("%s is allowed on everything", action)
				}
			case "secretsmanager:GetSecretValue", "ssm:GetParameter":
				if slices.Contains(s.Resource, "*") {
					t.Errorf("%s is allowed on everything", action)
				}
			}
		}
	}
}

type statement struct {
	Action    oneOrMany
	Resource  oneOrMany
	Condition map[string]map[string]any
}

// oneOrMany is a list that IAM writes without brackets if it has one element.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMany{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

func statements(t *testing.T) []statement {
	t.Helper()
	var doc struct{ Statement []statement }
	if err := json.Unmarshal(iam.Handler, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Statement
}
