// Package template evaluates template.yaml as CloudFormation does, for given parameters. It needs no account.
//
//	template.yaml --tools/python/template.py: AWS's own translator--> Template --Resolve--> Stack
//
// It does not include CloudFormation. cfn-lint checks the properties of resources, as does moto for the resources it
// knows.
package template

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Parameters are the values given at deployment. The template's defaults apply to the others.
type Parameters map[string]string

// The region for which the template is transformed and linted, and the location of the code.
const (
	Region = "eu-west-1"
	Code   = "s3://kops-spot-code/kops-spot.zip"
)

// A Template is the transformed template. It has JSON values as encoding/json reads them.
type Template struct {
	Parameters map[string]Parameter
	Rules      map[string]Rule
	Mappings   map[string]map[string]map[string]string
	Conditions map[string]any
	Resources  map[string]Resource
	Outputs    map[string]Output
	Metadata   map[string]any

	raw map[string]json.RawMessage
}

// A Resource is a resource of the stack.
type Resource struct {
	Type       string
	Condition  string `json:",omitempty"`
	DependsOn  any    `json:",omitempty"`
	Properties map[string]any
	Metadata   map[string]any `json:",omitempty"`
}

// An Output is an output of the stack.
type Output struct {
	Description string
	Condition   string `json:",omitempty"`
	Value       any
}

// Transformed is the template transformed for several sets of parameters.
type Transformed struct {
	Lint      []string              // cfn-lint's findings for the template as written
	Templates map[string]*Template  // by the name of the set
	LintOf    map[string][]string   // cfn-lint's findings for each of them
	Sets      map[string]Parameters // as requested
}

// Transform transforms template.yaml for each of the sets and lints it if requested. If the Python packages are
// missing, the error says how to install them.
func Transform(ctx context.Context, lint bool, sets map[string]Parameters) (*Transformed, error) {
	return transform(ctx, filepath.Join(Root(), "template.yaml"), Code, lint, sets)
}

// TransformText transforms the text of a template for one set of parameters. code is the location of the code in the
// template.
func TransformText(ctx context.Context, text []byte, code string, given Parameters) (*Template, error) {
	dir, err := os.MkdirTemp("", "template")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "template.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	t, err := transform(ctx, file, code, false, map[string]Parameters{"": given})
	if err != nil {
		return nil, err
	}
	return t.Templates[""], nil
}

func transform(ctx context.Context, file, code string, lint bool, sets map[string]Parameters) (*Transformed, error) {
	request, err := json.Marshal(map[string]any{"template": file, "code": code, "region": Region, "lint": lint,
		"sets": sets})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(Root(), "tools", "python", "template.py"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("transforming the template (`make tools` installs what this needs): %w\n%s", err,
			stderr.Bytes())
	}
	var result struct {
		Lint []string
		Sets map[string]struct {
			Refused  string
			Template json.RawMessage
			Lint     []string
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		return nil, fmt.Errorf("transforming the template: reading the result: %w", err)
	}
	t := &Transformed{Lint: result.Lint, Templates: map[string]*Template{}, LintOf: map[string][]string{}, Sets: sets}
	for name, set := range result.Sets {
		if set.Refused != "" {
			return nil, fmt.Errorf("transforming the template for %s: %s", name, set.Refused)
		}
		if t.Templates[name], err = parse(set.Template); err != nil {
			return nil, fmt.Errorf("transforming the template for %s: %w", name, err)
		}
		t.LintOf[name] = set.Lint
	}
	return t, nil
}

func parse(document []byte) (*Template, error) {
	t := &Template{}
	return t, errors.Join(json.Unmarshal(document, t), json.Unmarshal(document, &t.raw))
}

// Root is the directory of template.yaml.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
