package install

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

// exportedStack exports a stack with more parameters than small has. Hidden has NoEcho.
func exportedStack(t *testing.T, now *awsadmin.Stack, set ...string) (e Export, parameters string) {
	t.Helper()
	const more = "\n  ShortName: {Type: String}\n  Kept: {Type: String, Default: a}\n  Hidden: {Type: String, Default: '', NoEcho: true}\n"
	template, err := ParseTemplate([]byte(strings.Replace(small, "\nConditions", more+"Conditions", 1)))
	if err != nil {
		t.Fatal(err)
	}
	r := &Deployment{Template: template, Spec: Spec{Code: []byte("code"), Overrides: map[string]string{"Switch": "on"},
		Tags:   map[string]string{"team": "a b"},
		Values: iam.Values{Partition: "aws", Account: "123456789012", Region: "eu-west-1", Cluster: "prod.example.com"}}}
	for _, one := range set {
		name, value, _ := strings.Cut(one, "=")
		r.Spec.Overrides[name] = value
	}
	if e, err = r.Export("my dir", now); err != nil {
		t.Fatal(err)
	}
	var list []struct {
		ParameterKey, ParameterValue string
		UsePreviousValue             bool
	}
	if err := json.Unmarshal(e.Files["parameters.json"], &list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.UsePreviousValue {
			p.ParameterValue += "(previous)"
		}
		parameters += p.ParameterKey + "=" + p.ParameterValue + " "
	}
	return e, parameters
}

func TestExport(t *testing.T) {
	const stack, bucket = "cast-kops-prod-example-com-7405b0253a21", "cast-kops-code-123456789012-eu-west-1"
	e, parameters := exportedStack(t, nil)
	if want := "Cluster=prod.example.com ShortName=prod-example-com-7405b0253a21 Switch=on "; parameters != want {
		t.Errorf("the parameters are %q, want %q", parameters, want)
	}
	code := shortHash([]byte("code")) + ".zip"
	if string(e.Files[code]) != "code" || len(e.Files) != 3 || !strings.Contains(string(e.Files["template.yaml"]),
		"      CodeUri: s3://"+bucket+"/prod-example-com-7405b0253a21/"+code+"\n") {
		t.Errorf("got %q", e.Files)
	}
	key := "prod-example-com-7405b0253a21/template-" + shortHash(e.Files["template.yaml"]) + ".yaml"
	want := []string{
		"aws s3 cp 'my dir/" + code + "' s3://" + bucket + "/prod-example-com-7405b0253a21/" + code + " --region eu-west-1",
		"aws s3 cp 'my dir/template.yaml' s3://" + bucket + "/" + key + " --region eu-west-1",
		"aws cloudformation create-stack --stack-name " + stack + " --template-url https://" + bucket + ".s3.eu-west-1.amazonaws.com/" + key +
			" --parameters 'file://my dir/parameters.json' --capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND" +
			` --tags '[{"Key":"team","Value":"a b"}]' --region eu-west-1`,
		"aws cloudformation wait stack-create-complete --stack-name " + stack + " --region eu-west-1",
	}
	if !slices.Equal(e.Commands, want) || len(e.Omitted) > 0 {
		t.Errorf("the commands are\n%s\nwant\n%s\nomitted: %q", strings.Join(e.Commands, "\n"), strings.Join(want, "\n"), e.Omitted)
	}
}

// TestExportOfStack: the commands keep the stack's parameters, the secret ones too, and its tags. A stack that could
// not be created is deleted first, with its secrets.
func TestExportOfStack(t *testing.T) {
	const create, update, remove = " create-stack ", " update-stack ", " delete-stack "
	for name, c := range map[string]struct {
		status   string
		set      []string
		hidden   string // among the parameters
		omitted  []string
		commands []string
	}{
		"kept":    {"UPDATE_COMPLETE", nil, "Hidden=(previous) ", nil, []string{update, "stack-update-complete"}},
		"new":     {"CREATE_COMPLETE", []string{"Hidden=secret"}, "", []string{"Hidden"}, []string{update, "stack-update-complete"}},
		"removed": {"CREATE_COMPLETE", []string{"Hidden="}, "Hidden= ", nil, []string{update, "stack-update-complete"}},
		"could not be created": {"ROLLBACK_COMPLETE", nil, "", []string{"Hidden"},
			[]string{remove, "stack-delete-complete", create, "stack-create-complete"}},
	} {
		e, parameters := exportedStack(t, &awsadmin.Stack{Status: c.status,
			Parameters: map[string]string{"Kept": "b", "Hidden": awsadmin.HiddenValue, "Switch": "off"},
			Tags:       map[string]string{"owner": "me", "team": "old", "aws:cloudformation:stack-name": "x"}}, c.set...)
		want := "Cluster=prod.example.com " + c.hidden + "Kept=b ShortName=prod-example-com-7405b0253a21 Switch=on "
		if parameters != want || !slices.Equal(e.Omitted, c.omitted) {
			t.Errorf("%s: the parameters are %q without %q, want %q without %q", name, parameters, e.Omitted, want, c.omitted)
		}
		commands := e.Commands[2:]
		if !slices.EqualFunc(commands, c.commands, strings.Contains) {
			t.Errorf("%s: the commands are\n%s\nwant %q", name, strings.Join(commands, "\n"), c.commands)
		}
		tags := `--tags '[{"Key":"owner","Value":"me"},{"Key":"team","Value":"a b"}]'`
		if c.commands[0] == remove {
			tags = `--tags '[{"Key":"team","Value":"a b"}]'`
		}
		if all := strings.Join(commands, "\n"); !strings.Contains(all, tags) || strings.Contains(all, "secret") {
			t.Errorf("%s: the commands lack %s:\n%s", name, tags, all)
		}
	}
}
