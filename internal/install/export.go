package install

import (
	"encoding/json"
	"maps"
	"slices"
)

// Export is the stack's template, and its parameters as the options of the AWS CLI take them.
func (r *Deployment) Export() (map[string][]byte, error) {
	w := r.Spec
	parameters := w.parameters(r.Template, nil)
	template, err := r.Template.packaged(w.bucket(), w.key())
	if err != nil {
		return nil, err
	}
	var list []map[string]string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		list = append(list, map[string]string{"ParameterKey": name, "ParameterValue": parameters[name]})
	}
	text, err := json.MarshalIndent(list, "", "  ")
	return map[string][]byte{"template.yaml": []byte(template), "parameters.json": append(text, '\n')}, err
}
