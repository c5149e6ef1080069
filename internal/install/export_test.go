package install

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// exportedStack exports a stack with more parameters than small has. Hidden has NoEcho.
func exportedStack(t *testing.T, before map[string]string) (e Export, parameters string) {
	t.Helper()
	const more = "\n  ShortName: {Type: String}\n  Kept: {Type: String, Default: a}\n  Hidden: {Type: String, Default: '', NoEcho: true}\n"
	template, err := ParseTemplate([]byte(strings.Replace(small, "\nConditions", more+"Conditions", 1)))
	if err != nil {
		t.Fatal(err)
	}
	r := &Deployment{Template: template, Spec: Spec{Code: []byte("code"), Overrides: map[string]string{"Switch": "on"},
		Tags:   map[string]string{"team": "a b"},
		Values: iam.Values{Partition: "aws", Account: "123456789012", Region: "eu-west-1", Cluster: "prod.example.com"}}}
	if e, err = r.Export("my dir", before); err != nil {
		t.Fatal(err)
	}
	var list []struct{ ParameterKey, ParameterValue string }
	if err := json.Unmarshal(e.Files["parameters.json"], &list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
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

// TestExportOfStack keeps the stack's parameters, and omits the secret ones.
func TestExportOfStack(t *testing.T) {
	e, parameters := exportedStack(t, map[string]string{"Kept": "b", "Hidden": "****", "Switch": "off"})
	if want := "Cluster=prod.example.com Kept=b ShortName=prod-example-com-7405b0253a21 Switch=on "; parameters != want {
		t.Errorf("the parameters are %q, want %q", parameters, want)
	}
	commands := strings.Join(e.Commands, "\n")
	if !slices.Equal(e.Omitted, []string{"Hidden"}) || !strings.Contains(commands, " update-stack ") ||
		!strings.Contains(commands, " wait stack-update-complete ") {
		t.Errorf("it omits %q, and the commands are\n%s", e.Omitted, commands)
	}
}
