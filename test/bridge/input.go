package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// input is what the target gets of an event: its constant Input, the part that its InputPath names, what its
// InputTransformer makes of it, or all of it. What a path gets that leads nowhere the guide does not say; here it is an
// error.
func input(t types.Target, r rule, a arrival) ([]byte, error) {
	var made []byte
	switch {
	case t.Input != nil:
		made = []byte(*t.Input)
	case t.InputPath != nil:
		part, err := lookUp(a.body, *t.InputPath)
		if err != nil {
			return nil, fmt.Errorf("the target's input path: %w", err)
		}
		if part == nil {
			return nil, fmt.Errorf("the target's input path: the event has no %s", *t.InputPath)
		}
		made = part
	case t.InputTransformer != nil:
		text, err := transform(*t.InputTransformer, r, a)
		if err != nil {
			return nil, fmt.Errorf("the target's input transformer: %w", err)
		}
		made = []byte(text)
	default:
		return a.body, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, made); err != nil {
		return nil, fmt.Errorf("the target's input is no JSON: %w: %s", err, made)
	}
	return compact.Bytes(), nil
}

// step is one step of a JSON path: .name, ['name'] or [0].
var step = regexp.MustCompile(`^(?:\.([A-Za-z0-9_/-]+)|\['([^']+)'\]|\["([^"]+)"\]|\[([0-9]+)\])`)

// lookUp finds the value at a JSON path, as it is written in the document. Nil: there is none.
func lookUp(document []byte, path string) (json.RawMessage, error) {
	rest, ok := strings.CutPrefix(path, "$")
	if !ok {
		return nil, fmt.Errorf("path %q does not begin with $", path)
	}
	value := json.RawMessage(document)
	for rest != "" {
		m := step.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("path %q: the bridge cannot read it from %q on", path, rest)
		}
		rest = rest[len(m[0]):]
		if value != nil {
			value = child(value, m[1]+m[2]+m[3], m[4])
		}
	}
	return value, nil
}

// child is the member of an object with that name or, if there is an index, the element of an array. Nil: there is none.
func child(value json.RawMessage, name, index string) json.RawMessage {
	if index == "" {
		var members map[string]json.RawMessage
		if json.Unmarshal(value, &members) != nil {
			return nil
		}
		return members[name]
	}
	var elements []json.RawMessage
	n, err := strconv.Atoi(index)
	if err != nil || json.Unmarshal(value, &elements) != nil || n >= len(elements) {
		return nil
	}
	return elements[n]
}

var variable = regexp.MustCompile(`^<([A-Za-z0-9_.-]+)>`)

// transform fills the template in ("Input transformation", EventBridge User Guide): a variable in quotes becomes its
// text, which EventBridge does not escape; one without becomes its JSON; one whose path is not in the event becomes
// nothing. What is in angle brackets and no variable stays.
func transform(t types.InputTransformer, r rule, a arrival) (string, error) {
	if t.InputTemplate == nil {
		return "", errors.New("it has no template")
	}
	values, err := variables(t.InputPathsMap, r, a)
	if err != nil {
		return "", err
	}
	var filled strings.Builder
	quoted := false
	for rest := *t.InputTemplate; rest != ""; {
		if m := variable.FindStringSubmatch(rest); m != nil {
			if value, defined := values[m[1]]; defined {
				filled.WriteString(fill(value, quoted))
				rest = rest[len(m[0]):]
				continue
			}
		}
		n := 1
		switch {
		case rest[0] == '"':
			quoted = !quoted
		case rest[0] == '\\' && len(rest) > 1:
			n = 2
		}
		filled.WriteString(rest[:n])
		rest = rest[n:]
	}
	return filled.String(), nil
}

// variables are those of the target and the predefined ones.
func variables(paths map[string]string, r rule, a arrival) (map[string]json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	for name, path := range paths {
		value, err := lookUp(a.body, path)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
		values[name] = value
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &members); err != nil {
		return nil, err
	}
	delete(members, "detail")
	for name, value := range map[string]any{
		"aws.events.rule-arn":             r.arn,
		"aws.events.rule-name":            r.name,
		"aws.events.event":                members,
		"aws.events.event.json":           json.RawMessage(a.body),
		"aws.events.event.ingestion-time": seconds(a.received),
	} {
		values[name] = encode(value)
	}
	return values, nil
}

func fill(value json.RawMessage, quoted bool) string {
	if text := ""; quoted && bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}
