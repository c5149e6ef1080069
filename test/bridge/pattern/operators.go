package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// test looks at one value of an event: a string, a json.Number, a bool or null{}.
type test func(value any) bool

// operators are those that look at a value. They are case-sensitive, and each stands alone in its object.
var operators = map[string]func(argument any) (test, error){
	"prefix":             ignoringCase(strings.HasPrefix),
	"suffix":             ignoringCase(strings.HasSuffix),
	"equals-ignore-case": onStrings(strings.EqualFold),
	"wildcard":           wildcard,
	"anything-but":       anythingBut,
	"numeric":            numeric,
	"cidr":               cidr,
}

// parseCondition reads one element of an array in a pattern: a value, or an operator.
func parseCondition(value any) (condition, error) {
	switch value := value.(type) {
	case []any:
		return nil, errors.New("an array in an array")
	case map[string]any:
		return parseOperator(value)
	}
	return some(equals(value)), nil
}

func parseOperator(members map[string]any) (condition, error) {
	name, argument, err := single(members)
	if err != nil {
		return nil, err
	}
	if name == "exists" {
		want, ok := argument.(bool)
		if !ok {
			return nil, fmt.Errorf("exists: %s is neither true nor false", text(argument))
		}
		return func(values []any) bool { return len(values) > 0 == want }, nil
	}
	parse, ok := operators[name]
	if !ok {
		return nil, fmt.Errorf("unknown operator %q", name)
	}
	holds, err := parse(argument)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return some(holds), nil
}

// some holds if the test holds for one of the field's values.
func some(holds test) condition {
	return func(values []any) bool { return slices.ContainsFunc(values, holds) }
}

// equals compares numbers as they are written: "300, 300.0, and 3.0e2 are not considered equal" (Event patterns).
func equals(want any) test {
	return func(value any) bool { return value == want }
}

// single is the one member of an operator's object.
func single(members map[string]any) (name string, argument any, err error) {
	if len(members) != 1 {
		return "", nil, fmt.Errorf("%s must hold one operator", text(members))
	}
	for name, argument = range members {
	}
	return name, argument, nil
}

// onStrings is an operator that compares a string of the event with a string of the pattern.
func onStrings(compare func(value, with string) bool) func(any) (test, error) {
	return func(argument any) (test, error) {
		with, ok := argument.(string)
		if !ok {
			return nil, fmt.Errorf("%s is not a string", text(argument))
		}
		return func(value any) bool {
			s, ok := value.(string)
			return ok && compare(s, with)
		}, nil
	}
}

// ignoringCase is like onStrings, for operators that may also be told to ignore case.
func ignoringCase(compare func(value, with string) bool) func(any) (test, error) {
	return func(argument any) (test, error) {
		members, ok := argument.(map[string]any)
		if !ok {
			return onStrings(compare)(argument)
		}
		name, argument, err := single(members)
		if err != nil {
			return nil, err
		}
		if name != "equals-ignore-case" {
			return nil, fmt.Errorf("unknown operator %q", name)
		}
		return onStrings(func(value, with string) bool {
			return compare(strings.ToLower(value), strings.ToLower(with))
		})(argument)
	}
}

func cidr(argument any) (test, error) {
	s, _ := argument.(string)
	network, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("%s is not a network such as 10.0.0.0/24", text(argument))
	}
	return func(value any) bool {
		s, _ := value.(string)
		address, err := netip.ParseAddr(s)
		return err == nil && network.Contains(address)
	}, nil
}

// anythingBut holds for every value that the exception does not hold for, null and values of another type included; but a
// field must be there.
func anythingBut(argument any) (test, error) {
	if members, ok := argument.(map[string]any); ok {
		return anythingButOperator(members)
	}
	list, err := exceptions(argument)
	if err != nil {
		return nil, err
	}
	return func(value any) bool { return !slices.Contains(list, value) }, nil
}

// exceptions are a string or a number, or some of one kind.
func exceptions(argument any) ([]any, error) {
	list, ok := argument.([]any)
	if !ok {
		list = []any{argument}
	}
	strs, numbers := 0, 0
	for _, value := range list {
		switch value.(type) {
		case string:
			strs++
		case json.Number:
			numbers++
		}
	}
	if len(list) == 0 || strs != len(list) && numbers != len(list) {
		return nil, fmt.Errorf("%s is not a string or a number, nor a list of either", text(argument))
	}
	return list, nil
}

func anythingButOperator(members map[string]any) (test, error) {
	name, argument, err := single(members)
	if err != nil {
		return nil, err
	}
	var parse func(any) (test, error)
	switch name {
	case "prefix":
		parse = notEmpty(onStrings(strings.HasPrefix))
	case "suffix":
		parse = notEmpty(onStrings(strings.HasSuffix))
	case "equals-ignore-case":
		parse = onStrings(strings.EqualFold)
	case "wildcard":
		parse = wildcard
	default:
		return nil, fmt.Errorf("unknown operator %q", name)
	}
	list, ok := argument.([]any)
	if !ok {
		list = []any{argument}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: the list is empty", name)
	}
	var tests []test
	for _, item := range list {
		t, err := parse(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		tests = append(tests, t)
	}
	return func(value any) bool {
		return !slices.ContainsFunc(tests, func(holds test) bool { return holds(value) })
	}, nil
}

func notEmpty(parse func(any) (test, error)) func(any) (test, error) {
	return func(argument any) (test, error) {
		if argument == "" {
			return nil, errors.New("the string is empty")
		}
		return parse(argument)
	}
}
