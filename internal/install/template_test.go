package install

import (
	"strings"
	"testing"
)

const small = `
Parameters:
  Cluster: {Type: String}
  Switch: {Type: String, Default: 'off'}
  Size: {Type: Number, Default: 5}
Conditions:
  On: !Not [!Equals [!Ref Switch, 'off']]
  Any: !Or [!Condition On, !Equals [!Ref Size, 6]]
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {Events: 5}}
  Function:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Events:
        B: {Type: EventBridgeRule, Properties: {RuleName: !Sub 'x-${Cluster}.b', State: !If [Any, ENABLED, DISABLED], Pattern: {source: [aws.ec2]}}}
        A: {Type: Schedule, Properties: {Name: !Sub 'x-${Cluster}.a', Schedule: rate(5 minutes)}}
`

func TestParseTemplate(t *testing.T) {
	tmpl, err := ParseTemplate([]byte(small))
	if err != nil || len(tmpl.Events) != 2 {
		t.Fatalf("%+v, %v", tmpl, err)
	}
	if a := tmpl.Events[0]; a.Name != "a" || !tmpl.Enabled(a, nil) || !a.Schedule || a.Pattern != nil {
		t.Errorf("%+v", a)
	}
	if b := tmpl.Events[1]; b.Name != "b" || b.Schedule || b.TargetID != "FunctionBLambdaTarget" ||
		b.Pattern.(map[string]any)["source"].([]any)[0] != "aws.ec2" {
		t.Errorf("%+v", b)
	}
	for _, c := range []struct {
		parameters map[string]string
		want       bool
	}{{nil, false}, {map[string]string{"Switch": "on"}, true}, {map[string]string{"Size": "6"}, true}, {map[string]string{"Switch": ""}, true}} {
		if got := tmpl.Enabled(tmpl.Events[1], c.parameters); got != c.want {
			t.Errorf("with %v: got enabled %v, want %v", c.parameters, got, c.want)
		}
	}
	if d := tmpl.Defaults; len(d) != 3 || d["Cluster"] != nil || *d["Switch"] != "off" || *d["Size"] != "5" {
		t.Errorf("the defaults are %v", d)
	}
	for _, text := range []string{"- a", "a: ["} {
		if _, err := ParseTemplate([]byte(text)); err == nil || !strings.Contains(err.Error(), "reading the template") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPackaged(t *testing.T) {
	tmpl, err := ParseTemplate([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.packaged("bucket", "folder/key.zip", "eu-west-1")
	if err != nil || got != strings.Replace(small, "CodeUri: .", "CodeUri: s3://bucket/folder/key.zip", 1) {
		t.Errorf("%v\n%s", err, got)
	}
	twice := &Template{text: []byte("A:\n" + codeHere + codeHere)}
	if _, err := twice.packaged("bucket", "key", "eu-west-1"); err == nil {
		t.Error("a template with two functions is accepted")
	}
}
