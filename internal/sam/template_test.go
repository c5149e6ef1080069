package sam

import (
	"strings"
	"testing"
)

const small = `
Parameters:
  Cluster: {Type: String, AllowedPattern: '^[a-z.]+$', ConstraintDescription: it is a name, MaxLength: 12}
  Switch: {Type: String, Default: 'off', AllowedValues: ['on', 'off']}
  Size: {Type: Number, Default: 5, MinValue: 1, MaxValue: 10}
  Other: {Type: String, Default: ''}
Rules:
  Together:
    RuleCondition: !Or [!Not [!Equals [!Ref Other, '']], !And [!Equals [!Ref Size, 7], !Equals [!Ref Cluster, a.b]]]
    Assertions:
      - {Assert: !Equals [!Ref Switch, 'on'], AssertDescription: 'Switch: set it to on'}
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {Events: 5}}
  Function:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Events:
        B: {Type: EventBridgeRule, Properties: {RuleName: !Sub 'x-${Cluster}.b', State: !Ref Switch, Pattern: {source: [aws.ec2]}}}
        A: {Type: Schedule, Properties: {Name: !Sub 'x-${Cluster}.a', State: !Ref Switch, Schedule: rate(5 minutes)}}
`

func TestRefuses(t *testing.T) {
	tmpl, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		given map[string]string
		want  string
	}{
		"all is well":          {map[string]string{"Cluster": "a.b"}, ""},
		"missing":              {nil, "Cluster must have a value"},
		"unknown":              {map[string]string{"Cluster": "a.b", "Claster": "x"}, "there is no parameter Claster"},
		"pattern":              {map[string]string{"Cluster": "a.b\n"}, "Cluster: it does not match the pattern: it is a name"},
		"too long":             {map[string]string{"Cluster": "abcdefghijklm"}, "Cluster: it is too long"},
		"longer than any may":  {map[string]string{"Cluster": "a.b", "Other": strings.Repeat("x", 4097)}, "Other: it is too long"},
		"none of the values":   {map[string]string{"Cluster": "a.b", "Switch": "On"}, "Switch: it must be one of [on off]"},
		"too large":            {map[string]string{"Cluster": "a.b", "Size": "11"}, "Size: it is no number, too small or too large"},
		"too small":            {map[string]string{"Cluster": "a.b", "Size": "0"}, "Size: it is no number, too small or too large"},
		"no number":            {map[string]string{"Cluster": "a.b", "Size": "five"}, "Size: it is no number, too small or too large"},
		"a rule, first case":   {map[string]string{"Cluster": "a.b", "Other": "x"}, "Switch: set it to on"},
		"a rule, second case":  {map[string]string{"Cluster": "a.b", "Size": "7"}, "Switch: set it to on"},
		"a rule that is kept":  {map[string]string{"Cluster": "a.b", "Other": "x", "Switch": "on"}, ""},
		"not the rule's case":  {map[string]string{"Cluster": "a.c", "Size": "7"}, ""},
		"two mistakes at once": {map[string]string{"Cluster": "A", "Size": "0"}, "Cluster: it does not match the pattern: it is a name; Size: it is no number, too small or too large"},
	} {
		if got := strings.Join(tmpl.Refuses(c.given), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestEvents(t *testing.T) {
	tmpl, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	events, err := tmpl.Events()
	if err != nil || len(events) != 2 {
		t.Fatalf("%v, %v", events, err)
	}
	if a := events[0]; a.Name != "a" || a.Switch != "Switch" || !a.Schedule || a.Pattern != nil {
		t.Errorf("%+v", a)
	}
	if b := events[1]; b.Name != "b" || b.Schedule || b.Pattern.(map[string]any)["source"].([]any)[0] != "aws.ec2" {
		t.Errorf("%+v", b)
	}
}

func TestPackaged(t *testing.T) {
	tmpl, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Packaged("bucket", "folder/key.zip")
	if err != nil || got != strings.Replace(small, "CodeUri: .", "CodeUri: s3://bucket/folder/key.zip", 1) {
		t.Errorf("%v\n%s", err, got)
	}
	twice, err := Parse([]byte("A:\n" + codeHere + codeHere))
	if err == nil {
		_, err = twice.Packaged("bucket", "key")
	}
	if err == nil {
		t.Error("a template with two functions has been packaged as if it had one")
	}
}

func TestWhatIsNoTemplateIsRefused(t *testing.T) {
	for _, text := range []string{"", "- a", "a: [", "a: &x 1\nb: *x"} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "reading the template") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
