package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
)

func TestAllows(t *testing.T) {
	const rule = "arn:aws:events:eu-west-1:123456789012:rule/cast-kops-x.spot-warning"
	const invoke = `"Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"}`
	for name, c := range map[string]struct {
		statement string
		want      bool
	}{
		"for this rule": {`"Effect": "Allow", ` + invoke + `, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `"}}`, true},
		"for all rules": {`"Effect": "Allow", ` + invoke, true},
		"for another rule": {`"Effect": "Allow", ` + invoke + `, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `s"}}`,
			false},
		"for another service": {`"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "s3.amazonaws.com"}`,
			false},
		"for everybody":  {`"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": "*"`, false},
		"another action": {`"Effect": "Allow", "Action": "lambda:GetFunction", "Principal": {"Service": "events.amazonaws.com"}`, false},
		"a denial":       {`"Effect": "Deny", ` + invoke, false},
	} {
		policy := `{"Version": "2012-10-17", "Statement": [{` + c.statement + `}]}`
		if got := allows(policy, rule); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if allows("", rule) {
		t.Error("no policy allows the rule")
	}
}

func TestSamePattern(t *testing.T) {
	want := map[string]any{"source": []any{"aws.ec2"}, "detail-type": []any{"a"}}
	for text, same := range map[string]bool{
		`{"detail-type": ["a"], "source": ["aws.ec2"]}`:                     true,
		`{"source": ["aws.ec2"]}`:                                           false,
		`{"detail-type": ["a"], "source": ["aws.ec2"], "account": ["123"]}`: false,
		`no JSON`: false,
	} {
		if got := awsadmin.SameDocument(text, pattern(install.Event{Pattern: want})); got != same {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestSkippedSelfChecks: the field `skipped` decides, not the detail.
func TestSkippedSelfChecks(t *testing.T) {
	now := &checker{self: &app.SelfCheck{Checks: []app.Check{
		{Name: "authentication", Detail: "the token expired", Advice: "renew it"},
		{Name: "rbac", Skipped: true, Detail: "any text", Advice: "see the first"},
		{Name: "aws", Detail: "skipped: any text", Advice: "allow it"},
	}}}
	if err := now.checkInside(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]change.Level{Role: change.Fail, Network: change.OK, Authentication: change.Fail, RBAC: change.Warn}
	for _, f := range now.findings {
		if f.Level != want[f.Name] {
			t.Errorf("%+v, want %s", f, want[f.Name])
		}
	}
	if len(now.findings) != len(want) {
		t.Errorf("got %+v", now.findings)
	}
	if f := now.findings[3]; !strings.HasPrefix(f.Detail, "skipped: needs ") {
		t.Errorf("got %+v", f)
	}
}

// TestConcurrency: EC2 can reclaim all Spot instances at once.
func TestConcurrency(t *testing.T) {
	for instances, want := range map[int]change.Level{10: change.OK, 11: change.Warn} {
		now := &checker{function: &awsadmin.Function{Reserved: new(10)}}
		now.Instances = append(slices.Repeat([]awsadmin.Instance{{Spot: true}}, instances),
			awsadmin.Instance{Spot: true, Ended: true}, awsadmin.Instance{})
		if err := now.concurrency(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f := now.findings[0]; f.Level != want || f.Name != Concurrency || (f.Advice == "") != (want == change.OK) {
			t.Errorf("%d instances: %+v", instances, f)
		}
	}
}
