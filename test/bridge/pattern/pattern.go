// Package pattern matches events against EventBridge's event patterns.
//
// It follows "Event patterns" and "Comparison operators" of the EventBridge User Guide, and, where that is silent, the
// README of the library that EventBridge itself matches with (github.com/aws/event-ruler). What a pattern may not hold is
// an error, as it is for PutRule: a misspelt operator must not look like a pattern that merely matches nothing.
//
// Not modelled: the limits on a pattern's length and on the complexity of its wildcards; a dot in a name, which
// EventBridge takes for nesting; and arrays of objects in which some elements have a field and some do not, beside
// {"exists": false} for it, which holds here if one element lacks it.
package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// A Pattern says which events it wants.
type Pattern struct{ root object }

// object is a pattern for an object: all of its fields must match, and of each alternative one object.
type object struct {
	fields       map[string]field
	alternatives [][]object
}

// field is a pattern for a field: an object, or conditions of which one must hold.
type field struct {
	object     *object
	conditions []condition
}

// A condition looks at the values of a field. There are none if the event has no such field, more than one if it has an
// array.
type condition func(values []any) bool

// Parse reads a pattern.
func Parse(document []byte) (*Pattern, error) {
	value, err := decode(document)
	if err != nil {
		return nil, fmt.Errorf("reading the event pattern: %w", err)
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("reading the event pattern: it is not an object")
	}
	root, err := parseObject("", members)
	if err != nil {
		return nil, fmt.Errorf("reading the event pattern: %w", err)
	}
	return &Pattern{*root}, nil
}

func parseObject(path string, members map[string]any) (*object, error) {
	if len(members) == 0 {
		return nil, fmt.Errorf("%s: an object must not be empty", at(path))
	}
	o := &object{fields: map[string]field{}}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		below := join(path, name)
		if list, ok := members[name].([]any); ok && name == "$or" {
			alternatives, err := parseAlternatives(below, list)
			if err != nil {
				return nil, err
			}
			o.alternatives = append(o.alternatives, alternatives)
			continue
		}
		f, err := parseField(below, members[name])
		if err != nil {
			return nil, err
		}
		o.fields[name] = f
	}
	return o, nil
}

// parseAlternatives is strict: EventBridge takes an array "$or" that is no list of objects for a field of that name.
func parseAlternatives(path string, list []any) ([]object, error) {
	if len(list) < 2 {
		return nil, fmt.Errorf("%s: there must be two objects or more", path)
	}
	var alternatives []object
	for _, value := range list {
		members, ok := value.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: %s is not an object", path, text(value))
		}
		o, err := parseObject(path, members)
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, *o)
	}
	return alternatives, nil
}

func parseField(path string, value any) (field, error) {
	switch value := value.(type) {
	case map[string]any:
		o, err := parseObject(path, value)
		return field{object: o}, err
	case []any:
		if len(value) == 0 {
			return field{}, fmt.Errorf("%s: an array must not be empty", path)
		}
		var f field
		for _, item := range value {
			c, err := parseCondition(item)
			if err != nil {
				return field{}, fmt.Errorf("%s: %w", path, err)
			}
			f.conditions = append(f.conditions, c)
		}
		return f, nil
	}
	return field{}, fmt.Errorf("%s: %s must be an object or an array", path, text(value))
}

// Matches reports whether the pattern wants the event. That the event is no JSON object is an error.
func (p *Pattern) Matches(event []byte) (bool, error) {
	value, err := decode(event)
	if err != nil {
		return false, fmt.Errorf("reading the event: %w", err)
	}
	members, ok := value.(map[string]any)
	if !ok {
		return false, errors.New("reading the event: it is not an object")
	}
	return p.root.matches(members), nil
}

func (o *object) matches(members map[string]any) bool {
	for name, f := range o.fields {
		if !f.matches(members[name]) {
			return false
		}
	}
	for _, alternatives := range o.alternatives {
		if !slices.ContainsFunc(alternatives, func(one object) bool { return one.matches(members) }) {
			return false
		}
	}
	return true
}

func (f field) matches(value any) bool {
	if f.object == nil {
		values := leaves(nil, value)
		return slices.ContainsFunc(f.conditions, func(holds condition) bool { return holds(values) })
	}
	// All fields must be found in one element of an array, not one here and one there.
	within := objects(nil, value)
	if len(within) == 0 {
		return f.object.matches(nil)
	}
	return slices.ContainsFunc(within, f.object.matches)
}

// null is JSON's null in an event. In a map, nil stands for a name that is not there.
type null struct{}

// leaves appends the scalars of a value: itself, or those in an array. An object has none: operators work on leaf nodes.
func leaves(to []any, value any) []any {
	switch value := value.(type) {
	case nil, map[string]any:
		return to
	case []any:
		for _, item := range value {
			to = leaves(to, item)
		}
		return to
	}
	return append(to, value)
}

// objects appends the objects of a value: itself, or those in an array.
func objects(to []map[string]any, value any) []map[string]any {
	switch value := value.(type) {
	case map[string]any:
		return append(to, value)
	case []any:
		for _, item := range value {
			to = objects(to, item)
		}
	}
	return to
}

// decode reads one JSON value. Numbers stay as they are written, and null becomes null{}.
func decode(document []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after its end")
	}
	return markNulls(value), nil
}

func markNulls(value any) any {
	switch value := value.(type) {
	case nil:
		return null{}
	case map[string]any:
		for name := range value {
			value[name] = markNulls(value[name])
		}
	case []any:
		for i := range value {
			value[i] = markNulls(value[i])
		}
	}
	return value
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func at(path string) string {
	if path == "" {
		return "the pattern"
	}
	return path
}

// text is a value as it stands in JSON, for messages.
func text(value any) string {
	if value == (any)(null{}) {
		return "null"
	}
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(b)
}
