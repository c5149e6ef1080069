// Package template looks at template.yaml as CloudFormation does: what it makes of it for given parameters, and what it
// refuses. It needs no account.
//
//	template.yaml --tools/python/template.py: AWS's own translator--> Template --Resolve--> Stack
//
// CloudFormation itself is not here: whether a resource's properties are well is cfn-lint's word, and moto's as far as it
// knows the resource.
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

// Parameters are what whoever deploys gives; what is left out has the template's default.
type Parameters map[string]string

// The region for which a template is transformed and linted, and where its code is taken to be.
const (
	Region = "eu-west-1"
	Code   = "s3://kops-spot-code/kops-spot.zip"
)

// A Template is the template without its transform. It holds JSON as encoding/json reads it.
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

// A Resource is something that a stack has.
type Resource struct {
	Type       string
	Condition  string `json:",omitempty"`
	DependsOn  any    `json:",omitempty"`
	Properties map[string]any
	Metadata   map[string]any `json:",omitempty"`
}

// An Output is what a stack tells.
type Output struct {
	Description string
	Condition   string `json:",omitempty"`
	Value       any
}

// Transformed is what came of transforming the template for several sets of parameters.
type Transformed struct {
	Lint      []string              // what cfn-lint says of the template as it is written
	Templates map[string]*Template  // by the set's name
	LintOf    map[string][]string   // what cfn-lint says of each of them
	Sets      map[string]Parameters // as they were asked for
}

// Transform has template.yaml transformed for each of the sets, and linted too if that is asked for. That the Python
// packages for it are not installed is an error that says how to.
func Transform(ctx context.Context, lint bool, sets map[string]Parameters) (*Transformed, error) {
	return transform(ctx, filepath.Join(Root(), "template.yaml"), Code, lint, sets)
}

// TransformText has a template transformed as CloudFormation does when it is given one, for one set of parameters. code is
// where the template says that the code is.
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
	request, err := json.Marshal(map[string]any{"template": file, "code": code, "region": Region, "lint": lint, "sets": sets})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(Root(), "tools", "python", "template.py"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("transforming the template (`make tools` installs what this needs): %w\n%s", err, stderr.Bytes())
	}
	var told struct {
		Lint []string
		Sets map[string]struct {
			Refused  string
			Template json.RawMessage
			Lint     []string
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &told); err != nil {
		return nil, fmt.Errorf("transforming the template: reading what came of it: %w", err)
	}
	t := &Transformed{Lint: told.Lint, Templates: map[string]*Template{}, LintOf: map[string][]string{}, Sets: sets}
	for name, set := range told.Sets {
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

// Root is the directory that template.yaml is in.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
