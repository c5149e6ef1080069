package term

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

func TestPlan(t *testing.T) {
	var b strings.Builder
	err := Plan(&b, change.Plan{
		{Verb: change.Keep, Kind: "IAM user", Name: "cast-kops-prod.example.com"},
		{Verb: change.Update, Kind: "IAM policy", Name: "CASTKopsPolicyV2", Why: "it allows more than necessary", Diff: []string{"- \"*\"", "+ \"x\""}},
		{Verb: change.Create, Kind: "CloudFormation stack", Name: "cast-kops"},
		{Verb: change.Create, Kind: "Lambda Function", Name: "SpotHandlerFunction", Part: true},
		{Verb: change.Deactivate, Kind: "access key", Name: "AKIA0"},
	}, Options{})
	want := `  = keep       IAM user              cast-kops-prod.example.com
  ~ change     IAM policy            CASTKopsPolicyV2            it allows more than necessary
      - "*"
      + "x"
  + create     CloudFormation stack  cast-kops
    + create     Lambda Function     SpotHandlerFunction
  - deactivate access key            AKIA0

2 to create, 1 to change, 1 to deactivate, 1 to keep
`
	if err != nil || b.String() != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, b.String(), want)
	}
	b.Reset()
	if err := Plan(&b, change.Plan{{Verb: change.Keep, Kind: "a", Name: "b"}}, Options{}); err != nil || !strings.HasSuffix(b.String(), "\nnothing to change\n") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestFindings(t *testing.T) {
	var b strings.Builder
	err := Findings(&b, change.Findings{
		{Level: change.OK, Name: "rule", Detail: "enabled"},
		{Level: change.Fail, Name: "permission", Detail: "the rule is not allowed to invoke the function", Advice: "kops-spot install\nrestores it"},
	}, Options{})
	want := `✔ rule        enabled
✗ permission  the rule is not allowed to invoke the function
              -> kops-spot install
              -> restores it
`
	if err != nil || b.String() != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, b.String(), want)
	}
}
