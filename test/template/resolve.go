package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

// CloudFormation's values for the account and region.
const (
	Account   = "123456789012"
	partition = "aws"
)

// A Stack is a template with all functions evaluated.
type Stack struct {
	Resources map[string]Resource
	Outputs   map[string]Output

	resolver *resolver
}

// Resolve evaluates the functions and removes what the conditions exclude. It panics at a function that the template
// does not use.
func (t *Template) Resolve(given Parameters) *Stack {
	r := t.resolver(given)
	resources, outputs := r.carryOut()
	return &Stack{Resources: resources, Outputs: outputs, resolver: r}
}

// Settled evaluates only conditions, since moto takes the AWS::NoValue of a condition in a list for an element, and what
// refers to connections and API destinations, which moto does not know.
func (t *Template) Settled(given Parameters) ([]byte, error) {
	r := t.resolver(given)
	r.settle = true
	settled := maps.Clone(t.raw)
	resources, outputs := r.carryOut()
	for id, one := range resources {
		if IsReceiver(one.Type) {
			one.Properties = map[string]any{} // moto fails to delete an unknown resource whose properties have changed
			resources[id] = one
		}
	}
	for section, value := range map[string]any{"Resources": resources, "Outputs": outputs} {
		b, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		settled[section] = b
	}
	return json.Marshal(settled)
}

type resolver struct {
	*Template
	values map[string]string // of parameters and pseudo parameters
	settle bool              // evaluate only what Settled says
}

func (t *Template) resolver(given Parameters) *resolver {
	values := map[string]string{"AWS::Region": Region, "AWS::AccountId": Account, "AWS::Partition": partition}
	for name, p := range t.Parameters {
		if p.Default != nil {
			values[name] = string(*p.Default)
		}
	}
	maps.Copy(values, given)
	return &resolver{Template: t, values: values}
}

// carryOut evaluates the functions in v.
func (r *resolver) carryOut() (map[string]Resource, map[string]Output) {
	resources, outputs := map[string]Resource{}, map[string]Output{}
	for id, resource := range r.Resources {
		if r.made(resource.Condition) {
			resource.Condition = ""
			resource.Properties, _ = r.value(resource.Properties).(map[string]any)
			resources[id] = resource
		}
	}
	for id, o := range r.Outputs {
		if r.made(o.Condition) {
			o.Condition, o.Value = "", r.value(o.Value)
			outputs[id] = o
		}
	}
	return resources, outputs
}

func (r *resolver) made(condition string) bool {
	return condition == "" || r.holds(map[string]any{"Condition": condition})
}

// noValue is the result of AWS::NoValue: the property or element is removed.
type noValue struct{}

func (r *resolver) value(v any) any {
	switch v := v.(type) {
	case []any:
		list := []any{}
		for _, element := range v {
			if e := r.value(element); e != (noValue{}) {
				list = append(list, e)
			}
		}
		return list
	case map[string]any:
		if name, argument, ok := function(v); ok && (!r.settle || name == "Fn::If" || argument == "AWS::NoValue" || r.isReceiver(name, argument)) {
			return r.call(name, argument)
		}
		members := map[string]any{}
		for name, member := range v {
			if m := r.value(member); m != (noValue{}) {
				members[name] = m
			}
		}
		return members
	}
	return v
}

// IsReceiver reports whether a resource is part of a receiver of notifications over HTTP.
func IsReceiver(kind string) bool {
	return kind == "AWS::Events::Connection" || kind == "AWS::Events::ApiDestination"
}

// isReceiver reports whether a function reads an attribute of such a resource.
func (r *resolver) isReceiver(name string, argument any) bool {
	list, _ := argument.([]any)
	return name == "Fn::GetAtt" && len(list) == 2 && IsReceiver(r.Resources[fmt.Sprint(list[0])].Type)
}

// function returns the function of an object, if it is one.
func function(v map[string]any) (name string, argument any, is bool) {
	for name, argument = range v {
		is = len(v) == 1 && (name == "Ref" || name == "Condition" && isText(argument) ||
			strings.HasPrefix(name, "Fn::"))
	}
	return name, argument, is
}

func isText(v any) bool { _, is := v.(string); return is }

func (r *resolver) call(name string, argument any) any {
	list, _ := argument.([]any)
	switch name {
	case "Ref":
		return r.ref(argument.(string))
	case "Fn::GetAtt":
		if id, ok := argument.(string); ok {
			id, attribute, _ := strings.Cut(id, ".")
			return r.attribute(id, attribute)
		}
		return r.attribute(list[0].(string), list[1].(string))
	case "Fn::If":
		if r.made(list[0].(string)) {
			return r.value(list[1])
		}
		return r.value(list[2])
	case "Fn::Sub":
		return r.substitute(argument)
	case "Fn::Join":
		var parts []string
		for _, part := range r.value(list[1]).([]any) {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, list[0].(string))
	case "Fn::Split":
		var parts []any
		for _, part := range strings.Split(r.value(list[1]).(string), list[0].(string)) {
			parts = append(parts, part)
		}
		return parts
	case "Fn::Select":
		index, err := strconv.Atoi(fmt.Sprint(list[0]))
		if err != nil {
			panic(err)
		}
		return r.value(list[1]).([]any)[index]
	case "Fn::FindInMap":
		return r.Mappings[list[0].(string)][r.value(list[1]).(string)][r.value(list[2]).(string)]
	}
	panic("the template uses " + name + ", which the resolver does not support")
}

var variable = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)

func (r *resolver) substitute(argument any) string {
	own := map[string]any{}
	if list, ok := argument.([]any); ok {
		argument, own = list[0], list[1].(map[string]any)
	}
	return variable.ReplaceAllStringFunc(argument.(string), func(match string) string {
		name := match[2 : len(match)-1]
		if v, ok := own[name]; ok {
			return fmt.Sprint(r.value(v))
		}
		if id, attribute, ok := strings.Cut(name, "."); ok {
			return r.attribute(id, attribute)
		}
		return fmt.Sprint(r.ref(name))
	})
}

// holds evaluates the function of a condition.
func (r *resolver) holds(condition any) bool {
	name, argument, ok := function(condition.(map[string]any))
	if !ok {
		panic(fmt.Sprintf("%v is no condition", condition))
	}
	if name == "Condition" {
		return r.holds(r.Conditions[argument.(string)])
	}
	list := argument.([]any)
	switch name {
	case "Fn::Equals":
		settle := r.settle
		r.settle = false
		defer func() { r.settle = settle }()
		return fmt.Sprint(r.value(list[0])) == fmt.Sprint(r.value(list[1]))
	case "Fn::Not":
		return !r.holds(list[0])
	case "Fn::And", "Fn::Or":
		for _, c := range list {
			if r.holds(c) == (name == "Fn::Or") {
				return name == "Fn::Or"
			}
		}
		return name == "Fn::And"
	}
	panic("the template uses " + name + ", which the resolver does not support")
}
