// Package sam reads the SAM template as far as whoever deploys it has to know it: its parameters and what they refuse, and
// the rules that bring the function its events.
package sam

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Template is a template without what it makes.
type Template struct {
	Parameters map[string]Parameter
	Rules      map[string]Rule

	text     []byte
	document map[string]any // the whole of it, in JSON's terms
}

// An Event is a rule that has EventBridge invoke the function.
type Event struct {
	Name     string // what the rule's name ends with, after the dot: "spot-warning"
	Switch   string // the parameter that enables and disables it
	Pattern  any    // as encoding/json reads it; nil for a schedule
	Schedule bool
	TargetID string // what the transform calls the rule's target
	Age      int    // how long EventBridge tries to deliver an event, in seconds
}

// Parse reads a template with CloudFormation's short forms, such as !Ref.
func Parse(text []byte) (*Template, error) {
	document, err := read(text)
	if err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	t := &Template{text: text, document: document}
	if err := into(document, t); err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	return t, nil
}

// codeHere is the line of the template that says that the code is in its own directory.
const codeHere = "      CodeUri: .\n"

// Packaged is the template with the code's place put in, as `sam package` does.
func (t *Template) Packaged(bucket, key string) (string, error) {
	if bytes.Count(t.text, []byte(codeHere)) != 1 {
		return "", errors.New("the template does not say in one place where the code is")
	}
	return strings.Replace(string(t.text), codeHere, "      CodeUri: s3://"+bucket+"/"+key+"\n", 1), nil
}

// Events are the rules of the template, in the order of their names.
func (t *Template) Events() ([]Event, error) {
	var told struct {
		Resources map[string]struct {
			Type       string
			Properties struct {
				Events map[string]struct {
					Type       string
					Properties struct {
						RuleName, Name map[string]string
						State          struct{ Ref string }
						Pattern        any
						RetryPolicy    struct{ MaximumEventAgeInSeconds int }
					}
				}
			}
		}
	}
	if err := into(map[string]any{"Resources": functionsOf(t.document["Resources"])}, &told); err != nil {
		return nil, fmt.Errorf("reading the template's rules: %w", err)
	}
	var all []Event
	for function, r := range told.Resources {
		for id, e := range r.Properties.Events {
			p := e.Properties
			name := cmp.Or(p.RuleName["Fn::Sub"], p.Name["Fn::Sub"])
			all = append(all, Event{Name: name[strings.LastIndexByte(name, '.')+1:], Switch: p.State.Ref, Pattern: p.Pattern, Schedule: e.Type == "Schedule",
				TargetID: function + id + "LambdaTarget", Age: p.RetryPolicy.MaximumEventAgeInSeconds})
		}
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// functionsOf are the functions alone: other resources have other properties.
func functionsOf(resources any) map[string]any {
	all, _ := resources.(map[string]any)
	all = maps.Clone(all)
	maps.DeleteFunc(all, func(_ string, r any) bool {
		m, _ := r.(map[string]any)
		return m["Type"] != "AWS::Serverless::Function"
	})
	return all
}

func into(document map[string]any, out any) error {
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// read reads YAML with CloudFormation's tags in their long form.
func read(text []byte) (map[string]any, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if len(root.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	v, err := long(root.Content[0])
	if err != nil {
		return nil, err
	}
	document, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is no template")
	}
	return document, nil
}

// long is a node's value, with the functions of CloudFormation in their long form.
func long(n *yaml.Node) (any, error) {
	tag := ""
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		tag = n.Tag[1:]
	}
	v, err := plain(n, tag != "")
	if err != nil || tag == "" {
		return v, err
	}
	switch tag {
	case "Ref", "Condition":
		return map[string]any{tag: v}, nil
	}
	return map[string]any{"Fn::" + tag: v}, nil
}

// plain is a node's value without its tag.
func plain(n *yaml.Node, tagged bool) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := long(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, one := range n.Content {
			v, err := long(one)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		if tagged {
			return n.Value, nil
		}
		var v any
		err := n.Decode(&v)
		return v, err
	}
	return nil, fmt.Errorf("line %d: an alias is nothing that CloudFormation takes", n.Line)
}
