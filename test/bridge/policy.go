package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// request is what a service of AWS wants to do to a resource.
type request struct {
	principal, action, resource string
	sourceARN, sourceAccount    string
}

// policyAllows evaluates a resource's policy; why not is the error. A policy with an element that is not looked at here
// allows nothing: better a test that fails than a permission that was never there.
func policyAllows(document string, r request) error {
	if document == "" {
		return errors.New("there is none")
	}
	var policy struct{ Statement statements }
	if err := json.Unmarshal([]byte(document), &policy); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	allowed := false
	for _, s := range policy.Statement {
		applies, err := s.applies(r)
		switch {
		case err != nil:
			return fmt.Errorf("statement %q cannot be evaluated here: %w", s.Sid, err)
		case applies && s.Effect == "Deny":
			return fmt.Errorf("statement %q denies it", s.Sid)
		case applies && s.Effect == "Allow":
			allowed = true
		}
	}
	if !allowed {
		return errors.New("no statement does")
	}
	return nil
}

type statement struct {
	Sid, Effect string
	Principal   principals
	Action      oneOrMore
	Resource    oneOrMore
	Condition   map[string]map[string]oneOrMore
}

// statements may be one, without the array. An unknown element, such as NotAction, is an error.
type statements []statement

func (s *statements) UnmarshalJSON(document []byte) error {
	if !bytes.HasPrefix(document, []byte("[")) {
		document = slices.Concat([]byte("["), document, []byte("]"))
	}
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	return d.Decode((*[]statement)(s))
}

type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(document []byte) error {
	var one string
	if json.Unmarshal(document, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(document, (*[]string)(o))
}

// principals are by kind: Service, AWS and so on. "*" alone is everybody, as {"AWS": "*"} is.
type principals map[string]oneOrMore

func (p *principals) UnmarshalJSON(document []byte) error {
	if string(document) == `"*"` {
		*p = principals{"AWS": {"*"}}
		return nil
	}
	return json.Unmarshal(document, (*map[string]oneOrMore)(p))
}

func (s statement) applies(r request) (bool, error) {
	known := map[string]string{
		"aws:sourcearn":             r.sourceARN,
		"aws:sourceaccount":         r.sourceAccount,
		"aws:securetransport":       "true",
		"aws:principalisawsservice": "true",
	}
	holds := true
	for operator, keys := range s.Condition {
		for key, values := range keys {
			met, err := conditionMet(operator, known, strings.ToLower(key), values)
			if err != nil {
				return false, err
			}
			holds = holds && met
		}
	}
	anybody := slices.Contains(s.Principal["AWS"], "*")
	return holds && (anybody || slices.Contains(s.Principal["Service"], r.principal)) &&
		slices.ContainsFunc(s.Action, func(a string) bool { return glob(strings.ToLower(a), strings.ToLower(r.action)) }) &&
		slices.ContainsFunc(s.Resource, func(a string) bool { return glob(a, r.resource) }), nil
}

// comparisons are those of the condition operators, without their negations.
var comparisons = map[string]func(want, value string) bool{
	"StringEquals":           func(want, value string) bool { return want == value },
	"StringEqualsIgnoreCase": strings.EqualFold,
	"StringLike":             glob,
	"ArnEquals":              arnLike, // "ArnEquals and ArnLike behave identically" (IAM User Guide)
	"ArnLike":                arnLike,
	"Bool":                   strings.EqualFold,
}

// conditionMet evaluates one key of one operator: one of the values must fit, or, for a negated operator, none. A key
// that is not known of the request fits nothing.
func conditionMet(operator string, known map[string]string, key string, values oneOrMore) (bool, error) {
	name, ifExists := strings.CutSuffix(operator, "IfExists")
	positive := strings.Replace(name, "Not", "", 1)
	compare, ok := comparisons[positive]
	if !ok {
		return false, fmt.Errorf("unknown condition operator %s", operator)
	}
	value, there := known[key]
	if !there && ifExists {
		return true, nil
	}
	fits := there && slices.ContainsFunc(values, func(want string) bool { return compare(want, value) })
	return fits == (positive == name), nil
}

// arnLike compares part by part: a wildcard does not reach over a colon, but in the last part.
func arnLike(want, value string) bool {
	wants, values := strings.SplitN(want, ":", 6), strings.SplitN(value, ":", 6)
	if len(wants) != 6 || len(values) != 6 {
		return false
	}
	for i := range wants {
		if !glob(wants[i], values[i]) {
			return false
		}
	}
	return true
}

// glob matches with * for any characters and ? for one.
func glob(want, value string) bool {
	for i := range len(want) {
		switch {
		case want[i] == '*':
			for skip := range len(value) - i + 1 {
				if glob(want[i+1:], value[i+skip:]) {
					return true
				}
			}
			return false
		case i >= len(value) || want[i] != '?' && want[i] != value[i]:
			return false
		}
	}
	return len(want) == len(value)
}
