package onboard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// TestIndependentSteps: a refused step stops only what depends on it.
func TestIndependentSteps(t *testing.T) {
	w := testSpec()
	w.Store = InSecretsManager{w.Environment.Cluster}
	inCluster := func(verb change.Verb) []step {
		return change.Of([]step{newStep(verb, "ClusterRole", "kops-spot", "", awsadmin.Call{})}, partCluster)
	}
	ours := iam.Tags(w.Environment.Cluster)
	s := State{RoleName: "r", Role: &awsadmin.Role{Name: "r", Tags: ours, Rights: awsadmin.Rights{Inline: map[string]string{"CASTKopsHandler": ""}}},
		User: &awsadmin.User{Name: "u", Tags: ours, Keys: []awsadmin.Key{{ID: "AKID"}},
			Rights: awsadmin.Rights{Inline: map[string]string{"CASTKopsRestrictedaccess": ""}}},
		ClusterPolicy: &awsadmin.Policy{Name: "p", ARN: "p", Tags: ours}, TokenSecret: &awsadmin.Secret{Name: "t", Tags: ours}}
	onboarding, err := decide(w, State{RoleName: "r"}, Files{}, inCluster(change.Create), &tokenSync{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		steps         []step
		refused       string   // the row
		done, skipped []string // parts of rows
	}{
		"onboard: policy": {onboarding, "create IAM policy CASTKopsBoundary", []string{"IAM user", "IAM role", "ClusterRole", "secret", "inline policy r/"}, []string{"CASTKopsPolicyV2", "/CASTKopsRestrictedaccess", "access key"}},
		"onboard: user":   {onboarding, "create IAM user", []string{"IAM role", "IAM policy"}, []string{"ClusterRole", "/CASTKopsRestrictedaccess", "access key", "token"}},
		"onboard: role":   {onboarding, "create IAM role", []string{"IAM user", "/CASTKopsRestrictedaccess"}, []string{"ClusterRole", "inline policy r/", "access key", "token"}},
		"onboard: rights": {onboarding, "create inline policy r/CASTKopsHandler", []string{"/CASTKopsRestrictedaccess", "ClusterRole"}, []string{"r/CASTKopsRuntime", "access key"}},

		"offboard: key":     {decideRemoval(w, s, nil, inCluster(change.Delete)), "delete access key", []string{"ClusterRole", "inline policy u/", "IAM role r", "secret t", "IAM policy p"}, []string{"IAM user"}},
		"offboard: user":    {decideRemoval(w, s, nil, inCluster(change.Delete)), "delete IAM user", []string{"access key", "ClusterRole", "IAM role r", "secret t", "IAM policy p"}, nil},
		"offboard: rights":  {decideRemoval(w, s, nil, inCluster(change.Delete)), "delete inline policy u/", []string{"access key", "IAM role r", "secret t"}, []string{"IAM user", "IAM policy p"}},
		"offboard: cluster": {decideRemoval(w, s, nil, inCluster(change.Delete)), "delete ClusterRole", []string{"access key", "IAM user", "secret t", "IAM policy p"}, []string{"IAM role r", "inline policy r/"}},
		"offboard: role":    {decideRemoval(w, s, nil, inCluster(change.Delete)), "delete inline policy r/", []string{"IAM user", "secret t", "IAM policy p"}, []string{"IAM role r"}},
	} {
		var done []string
		refusals := 0
		steps := slices.Clone(c.steps)
		for i, one := range steps {
			if one.Write == nil {
				continue
			}
			steps[i].Write = func(context.Context, *Onboarding) error {
				if refusals == 0 && strings.HasPrefix(one.Row(), c.refused) {
					refusals++
					return errors.New("no")
				}
				done = append(done, one.Row())
				return nil
			}
		}
		err := change.Apply(t.Context(), &Onboarding{}, steps)
		if err == nil || !strings.HasPrefix(err.Error(), c.refused) || refusals != 1 {
			t.Errorf("%s: %v", name, err)
		}
		has := func(part string) bool {
			return slices.ContainsFunc(done, func(row string) bool { return strings.Contains(row+" ", part) })
		}
		for _, part := range c.done {
			if !has(part) {
				t.Errorf("%s: no %q among %q", name, part, done)
			}
		}
		for _, part := range c.skipped {
			if has(part) {
				t.Errorf("%s: %q among %q", name, part, done)
			}
		}
	}
}
