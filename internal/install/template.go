package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Template is the SAM template as far as whoever deploys it has to know it. What its parameters may be CloudFormation
// says.
type Template struct {
	Defaults map[string]*string // of all parameters; nil for one that must be given
	Events   []Event            // in the order of their names

	text []byte
}

// An Event is a rule that has EventBridge invoke the function.
type Event struct {
	Name     string // what the rule's name ends with, after the dot: "spot-warning"
	Switch   string // the parameter that enables and disables it
	Pattern  any    // in JSON's terms; nil for a schedule
	Schedule bool
	TargetID string // what the transform calls the rule's target
	Age      int    // how long EventBridge tries to deliver an event, in seconds
}

// function is what matters of the template's AWS::Serverless::Function. CloudFormation's short forms, such as !Ref, are
// read as what they are given.
type function struct {
	Events map[string]struct {
		Type       string `yaml:"Type"`
		Properties struct {
			RuleName    string `yaml:"RuleName"`
			Name        string `yaml:"Name"` // of a schedule
			State       string `yaml:"State"`
			Pattern     any    `yaml:"Pattern"`
			RetryPolicy struct {
				MaximumEventAgeInSeconds int `yaml:"MaximumEventAgeInSeconds"`
			} `yaml:"RetryPolicy"`
		} `yaml:"Properties"`
	} `yaml:"Events"`
}

// ParseTemplate reads a template.
func ParseTemplate(text []byte) (*Template, error) {
	var document struct {
		Parameters map[string]struct {
			Default *string `yaml:"Default"`
		} `yaml:"Parameters"`
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	t := &Template{Defaults: map[string]*string{}, text: text}
	for name, p := range document.Parameters {
		t.Defaults[name] = p.Default
	}
	for resource, r := range document.Resources {
		if r.Type != "AWS::Serverless::Function" {
			continue
		}
		var f function
		if err := r.Properties.Decode(&f); err != nil {
			return nil, fmt.Errorf("reading %s of the template: %w", resource, err)
		}
		for id, e := range f.Events {
			p := e.Properties
			name := cmp.Or(p.RuleName, p.Name)
			t.Events = append(t.Events, Event{Name: name[strings.LastIndexByte(name, '.')+1:], Switch: p.State,
				Pattern: p.Pattern, Schedule: e.Type == "Schedule", TargetID: resource + id + "LambdaTarget",
				Age: p.RetryPolicy.MaximumEventAgeInSeconds})
		}
	}
	slices.SortFunc(t.Events, func(a, b Event) int { return cmp.Compare(a.Name, b.Name) })
	return t, nil
}

// codeHere is the line of the template that says that the code is in its own directory.
const codeHere = "      CodeUri: .\n"

// packaged is the template with the code's place put in, as `sam package` does.
func (t *Template) packaged(bucket, key string) (string, error) {
	if bytes.Count(t.text, []byte(codeHere)) != 1 {
		return "", errors.New("the template does not say in one place where the code is")
	}
	return strings.Replace(string(t.text), codeHere, "      CodeUri: s3://"+bucket+"/"+key+"\n", 1), nil
}
