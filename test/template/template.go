// Package template evaluates template.yaml as CloudFormation does, for given parameters. It needs no account.
//
//	template.yaml --tools/python/template.py: AWS's own translator--> Template --Resolve--> Stack
//
// It does not include CloudFormation. cfn-lint checks the properties of resources, as does moto for the resources it
// knows.
package template

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
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
func Transform(lint bool, sets map[string]Parameters) (*Transformed, error) {
	return transform(filepath.Join(Root(), "template.yaml"), Code, lint, sets)
}

// TransformText transforms the text of a template for one set of parameters. code is the location of the code in the
// template.
func TransformText(text []byte, code string, given Parameters) (*Template, error) {
	dir, err := os.MkdirTemp("", "template")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "template.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	t, err := transform(file, code, false, map[string]Parameters{"": given})
	if err != nil {
		return nil, err
	}
	return t.Templates[""], nil
}

func transform(file, code string, lint bool, sets map[string]Parameters) (*Transformed, error) {
	request, err := json.Marshal(map[string]any{"template": file, "code": code, "region": Region, "lint": lint,
		"sets": sets})
	if err != nil {
		return nil, err
	}
	translator, err := startTranslator()
	if err != nil {
		return nil, err
	}
	answer, err := translator.ask(request)
	if err != nil {
		return nil, err
	}
	var result struct {
		Lint []string
		Sets map[string]struct {
			Refused  string
			Template json.RawMessage
			Lint     []string
		}
	}
	if err := json.Unmarshal(answer, &result); err != nil {
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

// translator is the running template.py, which answers each line with one line.
type translator struct {
	mu     sync.Mutex
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	stderr bytes.Buffer
}

// startTranslator starts the translator once, because that takes a second, and a transformation a tenth of it. It stops
// when this process exits.
var startTranslator = sync.OnceValues(func() (*translator, error) {
	t := &translator{cmd: exec.Command("python3", filepath.Join(Root(), "tools", "python", "template.py"))}
	t.cmd.Stderr = &t.stderr
	in, inErr := t.cmd.StdinPipe()
	out, outErr := t.cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, fmt.Errorf("starting the translator: %w", err)
	}
	t.in, t.out = in, bufio.NewReader(out)
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the translator: %w", err)
	}
	return t, nil
})

func (t *translator) ask(request []byte) (answer []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err = t.in.Write(append(request, '\n')); err == nil {
		answer, err = t.out.ReadBytes('\n')
	}
	if err != nil { // it has exited
		return nil, fmt.Errorf("transforming the template (`make tools` installs what this needs): %w\n%s",
			errors.Join(err, t.cmd.Wait()), t.stderr.Bytes())
	}
	return answer, nil
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
