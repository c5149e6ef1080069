package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// input is what the target gets of an event: all of it, or what its InputTransformer makes of it.
func input(t types.Target, event []byte) ([]byte, error) {
	if t.Input != nil || t.InputPath != nil {
		return nil, errors.New("a target's constant input and its input path are not known here")
	}
	if t.InputTransformer == nil {
		return event, nil
	}
	template := aws.ToString(t.InputTransformer.InputTemplate)
	if strings.Contains(template, "<aws.events.") {
		return nil, errors.New("the predefined variables of input transformers are not known here")
	}
	values := map[string]json.RawMessage{}
	for name, path := range t.InputTransformer.InputPathsMap {
		var err error
		if values[name], err = lookUp(event, path); err != nil {
			return nil, fmt.Errorf("the variable %s of the target's input transformer: %w", name, err)
		}
	}
	made := transform(template, values)
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(made)); err != nil {
		return nil, fmt.Errorf("the target's input is no JSON: %w: %s", err, made)
	}
	return compact.Bytes(), nil
}

// path is a JSON path of names alone.
var path = regexp.MustCompile(`^\$(\.[A-Za-z0-9_/-]+)+$`)

// lookUp finds the value at a JSON path, as it is written in the document. Nil: there is none.
func lookUp(document json.RawMessage, at string) (json.RawMessage, error) {
	if !path.MatchString(at) {
		return nil, fmt.Errorf("only paths of names, such as $.detail.state, are known here: %s", at)
	}
	for name := range strings.SplitSeq(at[2:], ".") {
		var members map[string]json.RawMessage
		if json.Unmarshal(document, &members) != nil {
			return nil, nil
		}
		document = members[name]
	}
	return document, nil
}

var variable = regexp.MustCompile(`^<([A-Za-z0-9_-]+)>`)

// transform fills a template in ("Input transformation", EventBridge User Guide): a variable in quotes becomes its
// text, which EventBridge does not escape; one without becomes its JSON; one whose path is not in the event, nothing.
func transform(template string, values map[string]json.RawMessage) string {
	var filled strings.Builder
	quoted := false
	for rest := template; rest != ""; {
		n := 1
		m := variable.FindStringSubmatch(rest)
		value, defined := json.RawMessage(nil), false
		if m != nil {
			value, defined = values[m[1]]
		}
		switch text := ""; {
		case defined:
			if quoted && bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &text) == nil {
				value = json.RawMessage(text)
			}
			filled.Write(value)
			rest = rest[len(m[0]):]
			continue
		case rest[0] == '"':
			quoted = !quoted
		case rest[0] == '\\' && len(rest) > 1:
			n = 2
		}
		filled.WriteString(rest[:n])
		rest = rest[n:]
	}
	return filled.String()
}
