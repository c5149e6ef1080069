package install

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Export is the stack for another deployment tool.
type Export struct {
	Files    map[string][]byte // by name
	Commands []string          // of the AWS CLI, which deploy the files
	Omitted  []string          // names of secret parameters whose value the stack does not keep
}

// parameter is a stack parameter in the form of the AWS CLI.
type parameter struct {
	ParameterKey     string
	ParameterValue   *string `json:",omitempty"`
	UsePreviousValue bool    `json:",omitempty"`
}

// Export returns the code, the packaged template, and its parameters in the form of the AWS CLI. It changes nothing.
// The commands find the files in dir. now is the stack; nil if there is none.
func (r *Deployment) Export(dir string, now *awsadmin.Stack) (e Export, err error) {
	w, before := r.Spec, map[string]string(nil)
	var dead bool
	if now != nil {
		before, dead = now.Parameters, now.MustBeDeleted()
	}
	values := w.StackParameters(r.Template, before)
	t, err := r.packagedTemplate()
	if err != nil {
		return e, err
	}
	var parameters []parameter
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch value := values[name]; {
		case !r.Template.Secret[name] || value == "":
			parameters = append(parameters, parameter{ParameterKey: name, ParameterValue: &value})
		case value == awsadmin.HiddenValue && !dead: // an update sets an omitted parameter to its default
			parameters = append(parameters, parameter{ParameterKey: name, UsePreviousValue: true})
		default:
			e.Omitted = append(e.Omitted, name)
		}
	}
	const template, list = "template.yaml", "parameters.json"
	code := path.Base(w.key())
	text, err := json.MarshalIndent(parameters, "", "  ")
	if err != nil {
		return e, fmt.Errorf("encoding the parameters: %w", err)
	}
	e.Files = map[string][]byte{code: w.Code, template: []byte(t.text), list: append(text, '\n')}

	aws := func(words ...string) {
		words = slices.Concat([]string{"aws"}, words, []string{"--region", w.Region})
		e.Commands = append(e.Commands, change.Command(words...))
	}
	for _, file := range [][2]string{{code, w.key()}, {template, t.key}} {
		aws("s3", "cp", filepath.Join(dir, file[0]), "s3://"+w.bucket()+"/"+file[1])
	}
	stack, verb, tags := StackName(w.Cluster), "create", w.Tags
	switch {
	case dead:
		aws("cloudformation", "delete-stack", "--stack-name", stack)
		aws("cloudformation", "wait", "stack-delete-complete", "--stack-name", stack)
	case now != nil:
		verb, tags = "update", now.TagsWith(w.Tags)
	}
	deploy := []string{"cloudformation", verb + "-stack", "--stack-name", stack, "--template-url", t.url,
		"--parameters", "file://" + filepath.Join(dir, list),
		"--capabilities", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"}
	if len(w.Tags) > 0 { // without --tags, the stack keeps its own
		var list []map[string]string
		for _, key := range slices.Sorted(maps.Keys(tags)) {
			list = append(list, map[string]string{"Key": key, "Value": tags[key]})
		}
		text, _ := json.Marshal(list) // strings never fail
		deploy = append(deploy, "--tags", string(text))
	}
	aws(deploy...)
	aws("cloudformation", "wait", "stack-"+verb+"-complete", "--stack-name", stack)
	return e, nil
}
