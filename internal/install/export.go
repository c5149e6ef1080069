package install

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"github.com/castai/kops-spot/internal/change"
)

// Export is the stack for another deployment tool.
type Export struct {
	Files    map[string][]byte // by name
	Commands []string          // of the AWS CLI, which deploy the files
	Omitted  []string          // names of secret parameters that have a value
}

// Export returns the code, the packaged template, and its parameters in the form of the AWS CLI. It changes nothing.
// The commands find the files in dir. before are the stack's parameters, nil if there is no stack.
func (r *Deployment) Export(dir string, before map[string]string) (e Export, err error) {
	w, parameters := r.Spec, r.Spec.StackParameters(r.Template, before)
	t, err := r.packagedTemplate()
	if err != nil {
		return e, err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Template.Secret)) {
		if parameters[name] != "" {
			e.Omitted = append(e.Omitted, name)
		}
		delete(parameters, name)
	}
	const template, list = "template.yaml", "parameters.json"
	code := path.Base(w.key())
	text, err := json.MarshalIndent(pairs(parameters, "ParameterKey", "ParameterValue"), "", "  ")
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
	verb := "create"
	if before != nil {
		verb = "update"
	}
	deploy := []string{"cloudformation", verb + "-stack", "--stack-name", StackName(w.Cluster), "--template-url", t.url,
		"--parameters", "file://" + filepath.Join(dir, list),
		"--capabilities", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"}
	if len(w.Tags) > 0 {
		tags, _ := json.Marshal(pairs(w.Tags, "Key", "Value")) // strings never fail
		deploy = append(deploy, "--tags", string(tags))
	}
	aws(deploy...)
	aws("cloudformation", "wait", "stack-"+verb+"-complete", "--stack-name", StackName(w.Cluster))
	return e, nil
}

// pairs returns a map in the form of AWS's APIs, sorted.
func pairs(m map[string]string, key, value string) (list []map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, map[string]string{key: name, value: m[name]})
	}
	return list
}
