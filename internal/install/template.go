package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Template is the part of the SAM template that a deployment needs. CloudFormation checks the values of parameters.
type Template struct {
	Defaults map[string]*string  // of all parameters; nil for a required one
	Allowed  map[string][]string // of the parameters that allow only some values
	Secret   map[string]bool     // the parameters that CloudFormation does not show
	Events   []Event             // ordered by name

	conditions map[string]yaml.Node
	text       []byte
}

// An Event is an EventBridge rule that invokes the function.
type Event struct {
	Name     string // the end of the rule's name: "spot-warning"
	Pattern  any    // as decoded from JSON; nil for a schedule
	Schedule bool
	TargetID string // as the SAM transform sets it
	Age      int    // of an event, in seconds, when EventBridge stops retrying

	state yaml.Node
}

// function is an AWS::Serverless::Function. A short form such as !Ref decodes to its argument.
type function struct {
	Events map[string]struct {
		Type       string `yaml:"Type"`
		Properties struct {
			RuleName    string    `yaml:"RuleName"`
			Name        string    `yaml:"Name"` // of a schedule
			State       yaml.Node `yaml:"State"`
			Pattern     any       `yaml:"Pattern"`
			RetryPolicy struct {
				MaximumEventAgeInSeconds int `yaml:"MaximumEventAgeInSeconds"`
			} `yaml:"RetryPolicy"`
		} `yaml:"Properties"`
	} `yaml:"Events"`
}

// ParseTemplate parses the SAM template.
func ParseTemplate(text []byte) (*Template, error) {
	var document struct {
		Parameters map[string]struct {
			Default       *string  `yaml:"Default"`
			AllowedValues []string `yaml:"AllowedValues"`
			NoEcho        bool     `yaml:"NoEcho"`
		} `yaml:"Parameters"`
		Conditions map[string]yaml.Node `yaml:"Conditions"`
		Resources  map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	t := &Template{Defaults: map[string]*string{}, Allowed: map[string][]string{}, Secret: map[string]bool{},
		conditions: document.Conditions, text: text}
	for name, p := range document.Parameters {
		t.Defaults[name] = p.Default
		if p.NoEcho {
			t.Secret[name] = true
		}
		if p.AllowedValues != nil {
			t.Allowed[name] = p.AllowedValues
		}
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
			t.Events = append(t.Events, Event{Name: name[strings.LastIndexByte(name, '.')+1:], state: p.State,
				Pattern: p.Pattern, Schedule: e.Type == "Schedule", TargetID: resource + id + "LambdaTarget",
				Age: p.RetryPolicy.MaximumEventAgeInSeconds})
		}
	}
	slices.SortFunc(t.Events, func(a, b Event) int { return cmp.Compare(a.Name, b.Name) })
	return t, nil
}

// Enabled reports whether the template enables an event's rule, given the stack's parameters.
func (t *Template) Enabled(e Event, parameters map[string]string) bool {
	return t.eval(&e.state, parameters) != "DISABLED"
}

// eval evaluates the intrinsic functions that the states of the rules and their conditions use.
func (t *Template) eval(n *yaml.Node, parameters map[string]string) string {
	arg := func(i int) string { return t.eval(n.Content[i], parameters) }
	condition := func(name string) string {
		c := t.conditions[name]
		return t.eval(&c, parameters)
	}
	switch n.Tag {
	case "!Ref":
		value, ok := parameters[n.Value]
		if d := t.Defaults[n.Value]; !ok && d != nil {
			value = *d
		}
		return value
	case "!Condition":
		return condition(n.Value)
	case "!If":
		if condition(n.Content[0].Value) == "true" {
			return arg(1)
		}
		return arg(2)
	case "!Join": // of a list, to compare it with the empty one
		return arg(1)
	case "!Equals":
		return strconv.FormatBool(arg(0) == arg(1))
	case "!Not":
		return strconv.FormatBool(arg(0) == "false")
	case "!Or":
		return strconv.FormatBool(slices.ContainsFunc(n.Content, func(a *yaml.Node) bool {
			return t.eval(a, parameters) == "true"
		}))
	}
	return n.Value
}

// codeHere is the line of the template with the local path of the code.
const codeHere = "      CodeUri: .\n"

// lackDestinations are the regions without EventBridge API destinations, according to cfn-lint 1.51.0. CloudFormation
// rejects a template with a type that its region lacks, whatever the resource's condition.
var lackDestinations = []string{"ap-east-2", "ap-southeast-5", "ap-southeast-6", "ca-west-1", "il-central-1", "mx-central-1",
	"us-gov-east-1", "us-gov-west-1"}

// packaged returns the template with the code's location in S3, like `sam package`, and without what its region lacks.
func (t *Template) packaged(bucket, key, region string) (string, error) {
	if bytes.Count(t.text, []byte(codeHere)) != 1 {
		return "", errors.New("the template must have CodeUri exactly once")
	}
	text := strings.Replace(string(t.text), codeHere, "      CodeUri: s3://"+bucket+"/"+key+"\n", 1)
	if !slices.Contains(lackDestinations, region) {
		return text, nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return "", fmt.Errorf("reading the template: %w", err)
	}
	removeReceiver(&document)
	short, err := yaml.Marshal(&document)
	return string(short), err
}

// removeReceiver removes the resources and targets that exist only with NotifyUrl.
func removeReceiver(n *yaml.Node) {
	size, kept := 1, []*yaml.Node(nil)
	if n.Kind == yaml.MappingNode {
		size = 2
	}
	for item := range slices.Chunk(n.Content, size) {
		value := item[size-1]
		conditional := value.Tag == "!If" && value.Content[0].Value == "NotifiesUrl"
		for i := 0; value.Kind == yaml.MappingNode && i < len(value.Content); i += 2 {
			conditional = conditional || value.Content[i].Value == "Condition" && value.Content[i+1].Value == "NotifiesUrl"
		}
		if !conditional {
			removeReceiver(value)
			kept = append(kept, item...)
		}
	}
	n.Content = kept
}
