package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Parameter is a parameter of the template.
type Parameter struct {
	Type                  string
	Default               *Text
	Description           string
	AllowedPattern        string
	ConstraintDescription string
	AllowedValues         []Text
	MinValue, MaxValue    *float64
	MaxLength             *int
	NoEcho                any // CloudFormation does not show it
}

// Text is a value as CloudFormation reads it: numbers are strings, too.
type Text string

// UnmarshalJSON reads a number as its digits.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	*t = Text(s)
	return nil
}

// A Rule is a constraint between parameters.
type Rule struct {
	RuleCondition any
	Assertions    []Assertion
}

// An Assertion must hold if the rule's condition does.
type Assertion struct {
	Assert            any
	AssertDescription string
}

// longestValue is CloudFormation's limit of a parameter's value in bytes.
const longestValue = 4096

// Refuses returns why CloudFormation rejects the parameters, or nothing.
func (t *Template) Refuses(given Parameters) (reasons []string) {
	refuse := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := t.Parameters[name]; !ok {
			refuse("Parameters: [%s] do not exist in the template", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		p := t.Parameters[name]
		value, ok := given[name]
		if !ok && p.Default == nil {
			refuse("Parameters: [%s] must have values", name)
			continue
		} else if !ok {
			value = string(*p.Default)
		}
		if !p.accepts(value) {
			refuse("Parameter %s failed to satisfy constraint: %s", name, p.ConstraintDescription)
		}
	}
	if len(reasons) > 0 {
		return reasons
	}
	r := t.resolver(given)
	for _, name := range slices.Sorted(maps.Keys(t.Rules)) {
		rule := t.Rules[name]
		if rule.RuleCondition != nil && !r.holds(rule.RuleCondition) {
			continue
		}
		for _, a := range rule.Assertions {
			if !r.holds(a.Assert) {
				refuse("%s", a.AssertDescription)
			}
		}
	}
	return reasons
}

func (p Parameter) isList() bool { return p.Type == "CommaDelimitedList" }

// elements splits the value of a list, which has one element more than commas. CloudFormation trims each of them, and
// applies the constraints to each.
func elements(value string) []string {
	all := strings.Split(value, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// accepts reports whether a value satisfies the parameter's constraints.
func (p Parameter) accepts(value string) bool {
	switch {
	case p.isList():
		p.Type = "String"
		return len(value) <= longestValue &&
			!slices.ContainsFunc(elements(value), func(element string) bool { return !p.accepts(element) })
	case len(value) > longestValue, p.MaxLength != nil && len(value) > *p.MaxLength,
		len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, Text(value)),
		p.AllowedPattern != "" && !regexp.MustCompile(`\A(?:`+p.AllowedPattern+`)\z`).MatchString(value):
		return false
	case p.Type != "Number":
		return true
	}
	n, err := strconv.ParseFloat(value, 64)
	return err == nil && (p.MinValue == nil || n >= *p.MinValue) && (p.MaxValue == nil || n <= *p.MaxValue)
}
