// Package pattern matches events against EventBridge's event patterns, by "Event patterns" and "Comparison operators"
// of the EventBridge User Guide: values, nesting, and the operators prefix, suffix and exists. Any other operator is an
// error, and so is what EventBridge itself refuses: neither may look like a pattern that merely matches nothing.
package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Pattern says which events it wants.
type Pattern struct{ fields map[string]any }

// affixes are the operators that compare strings.
var affixes = map[string]func(value, with string) bool{"prefix": strings.HasPrefix, "suffix": strings.HasSuffix}

// Parse reads a pattern.
func Parse(document []byte) (*Pattern, error) {
	fields, err := decode(document)
	if err == nil {
		err = check("the pattern", fields)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event pattern: %w", err)
	}
	return &Pattern{fields}, nil
}

// check refuses what matches could not evaluate.
func check(path string, fields map[string]any) error {
	if len(fields) == 0 {
		return fmt.Errorf("%s: an object must not be empty", path)
	}
	for name, field := range fields {
		below := path + "." + name
		switch field := field.(type) {
		case map[string]any:
			if err := check(below, field); err != nil {
				return err
			}
		case []any:
			if len(field) == 0 || slices.ContainsFunc(field, func(one any) bool { return !known(one) }) {
				encoded, _ := json.Marshal(field) // it has been read from JSON
				return fmt.Errorf("%s: only values and the operators prefix, suffix and exists are known here: %s", below, encoded)
			}
		default:
			return fmt.Errorf("%s: it must be an object or an array", below)
		}
	}
	return nil
}

// known reports whether an element of an array is a value, or one operator with an argument of its type.
func known(condition any) bool {
	if _, isArray := condition.([]any); isArray {
		return false
	}
	operator, isOperator := condition.(map[string]any)
	if !isOperator {
		return true
	}
	for name, argument := range operator {
		_, isBool := argument.(bool)
		_, isString := argument.(string)
		return len(operator) == 1 && (name == "exists" && isBool || affixes[name] != nil && isString)
	}
	return false
}

// Matches reports whether the pattern wants the event. That the event is no JSON object is an error.
func (p *Pattern) Matches(event []byte) (bool, error) {
	members, err := decode(event)
	if err != nil {
		return false, fmt.Errorf("reading the event: %w", err)
	}
	return matches(p.fields, members), nil
}

func matches(fields, members map[string]any) bool {
	for name, field := range fields {
		value, there := members[name]
		if conditions, ok := field.([]any); ok {
			var values []any
			if there {
				values = leaves(nil, value)
			}
			if !slices.ContainsFunc(conditions, func(one any) bool { return holds(one, values) }) {
				return false
			}
			continue
		}
		// All fields must be found in one element of an array, not one here and one there.
		within := objects(nil, value)
		if len(within) == 0 {
			within = []map[string]any{nil}
		}
		nested := field.(map[string]any)
		if !slices.ContainsFunc(within, func(one map[string]any) bool { return matches(nested, one) }) {
			return false
		}
	}
	return true
}

// holds looks at the values of a field: none if the event has no such field, more than one if it has an array. Numbers
// are compared as they are written: "300, 300.0, and 3.0e2 are not considered equal" (Event patterns).
func holds(condition any, values []any) bool {
	operator, ok := condition.(map[string]any)
	if !ok {
		return slices.Contains(values, condition)
	}
	if want, ok := operator["exists"]; ok {
		return len(values) > 0 == want
	}
	return slices.ContainsFunc(values, func(value any) bool {
		s, ok := value.(string)
		for name, argument := range operator {
			ok = ok && affixes[name](s, argument.(string))
		}
		return ok
	})
}

// leaves appends the scalars of a value: itself, or those in an array. An object has none: operators work on leaves.
func leaves(to []any, value any) []any {
	switch value := value.(type) {
	case map[string]any:
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

// decode reads one JSON object. Numbers stay as they are written.
func decode(document []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after its end")
	}
	if object == nil {
		return nil, errors.New("it is not an object")
	}
	return object, nil
}
