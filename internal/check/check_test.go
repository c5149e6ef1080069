package check

import (
	"testing"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
)

func TestAllows(t *testing.T) {
	const rule = "arn:aws:events:eu-west-1:123456789012:rule/cast-kops-x.spot-warning"
	statement := func(s string) string { return `{"Version": "2012-10-17", "Statement": [` + s + `]}` }
	for name, c := range map[string]struct {
		policy string
		want   bool
	}{
		"for this rule": {statement(`{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"},
			"Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `"}}}`), true},
		"for all rules": {statement(`{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"}}`), true},
		"for another rule": {statement(`{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"},
			"Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `s"}}}`), false},
		"for another service": {statement(`{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "s3.amazonaws.com"}}`), false},
		"for anybody":         {statement(`{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": "*"}`), false},
		"another action":      {statement(`{"Effect": "Allow", "Action": "lambda:GetFunction", "Principal": {"Service": "events.amazonaws.com"}}`), false},
		"a denial":            {statement(`{"Effect": "Deny", "Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"}}`), false},
		"none":                {"", false},
	} {
		if got := allows(c.policy, rule); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
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
		if got := awsadmin.SameDocument(text, ruleStatus{Event: install.Event{Pattern: want}}.pattern()); got != same {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestRoomForAllAtOnce: as many invocations as there are machines that can be interrupted at once.
func TestRoomForAllAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		limit, machines int
		want            change.Level
	}{"room": {10, 10, change.OK}, "too few": {10, 11, change.Warn}} {
		now := &checker{}
		now.compare(c.limit, c.machines, "of the account")
		if f := now.findings[0]; f.Level != c.want || f.Name != Concurrency || (f.Advice == "") != (c.want == change.OK) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
