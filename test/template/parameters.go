package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

// A Parameter is what a template lets whoever deploys choose.
type Parameter struct {
	Type                  string
	Default               *text
	Description           string
	AllowedPattern        string
	ConstraintDescription string
	AllowedValues         []text
	MinValue, MaxValue    *float64
	MaxLength             *int
}

// text is a value as CloudFormation takes it: numbers too are texts to it.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	*t = text(s)
	return nil
}

// A Rule is what must hold between parameters.
type Rule struct {
	RuleCondition any
	Assertions    []Assertion
}

// An Assertion is what a rule demands where its condition holds.
type Assertion struct {
	Assert            any
	AssertDescription string
}

// longestValue is how many bytes CloudFormation lets a parameter's value have.
const longestValue = 4096

// Refuses returns why CloudFormation would not begin with these parameters; nothing if it would.
func (t *Template) Refuses(given Parameters) (reasons []string) {
	refuse := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	for name := range given {
		if _, ok := t.Parameters[name]; !ok {
			refuse("there is no parameter %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		p := t.Parameters[name]
		value, ok := given[name]
		if !ok && p.Default == nil {
			refuse("%s must have a value", name)
			continue
		} else if !ok {
			value = string(*p.Default)
		}
		if why := p.refuses(value); why != "" {
			refuse("%s: %s", name, why)
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

func (p Parameter) refuses(value string) string {
	switch {
	case len(value) > longestValue, p.MaxLength != nil && len(value) > *p.MaxLength:
		return "it is too long"
	case len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, text(value)):
		return fmt.Sprintf("it must be one of %v", p.AllowedValues)
	case p.AllowedPattern != "" && !regexp.MustCompile(`\A(?:`+p.AllowedPattern+`)\z`).MatchString(value):
		return "it does not match the pattern: " + p.ConstraintDescription
	}
	if p.Type != "Number" {
		return ""
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || p.MinValue != nil && n < *p.MinValue || p.MaxValue != nil && n > *p.MaxValue {
		return "it is no number, too small or too large"
	}
	return ""
}
