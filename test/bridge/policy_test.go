package bridge

import (
	"strings"
	"testing"
)

func TestPolicyAllows(t *testing.T) {
	const (
		ruleARN  = "arn:aws:events:us-east-1:123456789012:rule/cast-spot"
		function = "arn:aws:lambda:us-east-1:123456789012:function:cast-spot-handler"
		whole    = `"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "lambda:InvokeFunction", "Resource": "` + function + `"`
	)
	is := request{principal: service, action: "lambda:InvokeFunction", resource: function, sourceARN: ruleARN, sourceAccount: "123456789012"}
	one := func(statement string) string { return `{"Version": "2012-10-17", "Statement": [{` + statement + `}]}` }
	with := func(old, new string) string { return one(strings.Replace(whole, old, new, 1)) }
	on := func(condition string) string { return one(whole + `, "Condition": {` + condition + `}`) }
	for _, c := range []struct{ name, policy, says string }{
		{"as AddPermission writes it", on(`"ArnLike": {"AWS:SourceArn": "` + ruleARN + `"}`), ""},
		{"without a condition", one(whole), ""},
		{"one statement without an array", `{"Statement": {` + whole + `}}`, ""},
		{"lists",
			one(`"Effect": "Allow", "Principal": {"Service": ["a", "events.amazonaws.com"]}, "Action": ["x", "Lambda:*"], "Resource": ["x", "arn:aws:lambda:*"]`), ""},
		{"everybody", with(`{"Service": "events.amazonaws.com"}`, `"*"`), ""},
		{"everybody, as AWS", with(`"Service": "events.amazonaws.com"`, `"AWS": "*"`), ""},

		{"no policy", "", "there is none"},
		{"no JSON", "{", "cannot be read"},
		{"another service", with("events.amazonaws.com", "s3.amazonaws.com"), "no statement does"},
		{"another account's users", with(`"Service": "events.amazonaws.com"`, `"AWS": "arn:aws:iam::123456789012:root"`), "no statement does"},
		{"another action", with("lambda:InvokeFunction", "lambda:InvokeFunctionUrl"), "no statement does"},
		{"another function", with("cast-spot-handler", "cast-spot"), "no statement does"},
		{"a version of the function", with("cast-spot-handler", "cast-spot-handler:1"), "no statement does"},

		{"another rule", on(`"ArnLike": {"aws:SourceArn": "arn:aws:events:us-east-1:123456789012:rule/cast"}`), "no statement does"},
		{"a wildcard for the rule", on(`"ArnLike": {"aws:SourceArn": "arn:aws:events:*:123456789012:rule/cast-*"}`), ""},
		{"a wildcard over a colon", on(`"ArnLike": {"aws:SourceArn": "arn:aws:events:*:rule/cast-spot"}`), "no statement does"},
		{"ArnEquals knows wildcards too", on(`"ArnEquals": {"aws:SourceArn": "arn:aws:events:us-east-?:123456789012:rule/*"}`), ""},
		{"StringEquals does not", on(`"StringEquals": {"aws:SourceArn": "arn:aws:events:*:123456789012:rule/cast-spot"}`), "no statement does"},
		{"StringEquals", on(`"StringEquals": {"aws:SourceArn": ["x", "` + ruleARN + `"]}`), ""},
		{"StringLike", on(`"StringLike": {"aws:SourceArn": "*:rule/cast-spot"}`), ""},
		{"the account", on(`"StringEquals": {"AWS:SourceAccount": "123456789012"}`), ""},
		{"another account", on(`"StringEquals": {"AWS:SourceAccount": "210987654321"}`), "no statement does"},
		{"the account and another rule",
			on(`"StringEquals": {"AWS:SourceAccount": "123456789012"}, "ArnLike": {"AWS:SourceArn": "arn:aws:events:us-east-1:123456789012:rule/x"}`), "no statement does"},
		{"not another account", on(`"StringNotEquals": {"aws:SourceAccount": "210987654321"}`), ""},
		{"not this account", on(`"StringNotEquals": {"aws:SourceAccount": "123456789012"}`), "no statement does"},
		{"a key that the request has not", on(`"StringEquals": {"aws:PrincipalOrgID": "o-1"}`), "no statement does"},
		{"a key that the request has not, if it exists", on(`"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}`), ""},
		{"a key that the request has, if it exists", on(`"StringEqualsIfExists": {"aws:SourceAccount": "x"}`), "no statement does"},
		{"encrypted", on(`"Bool": {"aws:SecureTransport": "true"}`), ""},
		{"an operator that is not known here", on(`"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}`), "unknown condition operator IpAddress"},

		{"denied too", `{"Statement": [{` + whole + `}, {"Sid": "no", ` + strings.Replace(whole, "Allow", "Deny", 1) + `}]}`, `statement "no" denies it`},
		{"denied to others",
			`{"Statement": [{` + strings.Replace(whole, "Allow", "Deny", 1) + `, "Condition": {"StringNotEquals": {"aws:SourceAccount": "123456789012"}}}, {` + whole + `}]}`, ""},
		{"an element that is not looked at", one(whole + `, "NotAction": "x"`), "NotAction"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := policyAllows(c.policy, is)
			if c.says == "" {
				if err != nil {
					t.Errorf("got %v for %s", err, c.policy)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q, for %s", err, c.says, c.policy)
			}
		})
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "abc", true}, {"a*c", "abcd", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"a?", "a", false}, {"**", "a", true},
		{"a*b*c", "axbxbxc", true}, {"a*b*c", "axcxb", false}, {"abc", "abcd", false}, {"abcd", "abc", false},
	} {
		if got := glob(c.pattern, c.value); got != c.want {
			t.Errorf("%q, %q: got %v", c.pattern, c.value, got)
		}
	}
}
