// Package pattern matches events against EventBridge's event patterns, by "Event patterns" of the EventBridge User Guide:
// values, and nesting. Any operator is an error, and so are what EventBridge itself refuses and a pattern that looks into an
// array: none of them may look like a pattern that merely matches nothing.
package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Pattern says which events it wants.
type Pattern struct{ fields map[string]any }

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
			if len(field) == 0 || slices.ContainsFunc(field, composed) {
				return fmt.Errorf("%s: only values are known here: %v", below, field)
			}
		default:
			return fmt.Errorf("%s: it must be an object or an array", below)
		}
	}
	return nil
}

func composed(value any) bool {
	switch value.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

// Matches reports whether the pattern wants the event. That the event is no JSON object is an error.
func (p *Pattern) Matches(event []byte) (bool, error) {
	members, err := decode(event)
	if err != nil {
		return false, fmt.Errorf("reading the event: %w", err)
	}
	return matches(p.fields, members)
}

// matches compares numbers as they are written: "300, 300.0, and 3.0e2 are not considered equal" (Event patterns).
func matches(fields, members map[string]any) (bool, error) {
	for name, field := range fields {
		value := members[name]
		if _, isArray := value.([]any); isArray {
			return false, fmt.Errorf("the pattern asks for %s, which is an array: that is not known here", name)
		}
		nested, isNested := field.(map[string]any)
		if !isNested {
			if _, there := members[name]; !there || !slices.Contains(field.([]any), value) {
				return false, nil
			}
			continue
		}
		within, _ := value.(map[string]any)
		if ok, err := matches(nested, within); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
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
