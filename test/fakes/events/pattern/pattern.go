// Package pattern matches events against EventBridge's event patterns ("Event patterns", EventBridge User Guide):
// values and nesting only. Operators, patterns that EventBridge rejects and patterns that match in an array are errors,
// so that none of them looks like a pattern that merely does not match.
package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Pattern selects events.
type Pattern struct{ fields map[string]any }

// Parse parses a pattern.
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

// check rejects patterns that matches does not support.
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
				return fmt.Errorf("%s: only values are supported: %v", below, field)
			}
		default:
			return fmt.Errorf("%s: want an object or an array", below)
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

// Matches reports whether the pattern matches the event, which must be a JSON object.
func (p *Pattern) Matches(event []byte) (bool, error) {
	members, err := decode(event)
	if err != nil {
		return false, fmt.Errorf("reading the event: %w", err)
	}
	return matches(p.fields, members)
}

// matches compares numbers as written: "300, 300.0, and 3.0e2 are not considered equal" (Event patterns).
func matches(fields, members map[string]any) (bool, error) {
	for name, field := range fields {
		value := members[name]
		if _, isArray := value.([]any); isArray {
			return false, fmt.Errorf("the pattern matches %s, which is an array: arrays are not supported", name)
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

// decode reads one JSON object and keeps numbers as written.
func decode(document []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("unexpected data after the object")
	}
	if object == nil {
		return nil, errors.New("not an object")
	}
	return object, nil
}
