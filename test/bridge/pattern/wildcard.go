package pattern

import (
	"errors"
	"fmt"
	"strings"
)

// wildcard reads a string in which * stands for any characters, none included; \* and \\ stand for themselves.
func wildcard(argument any) (test, error) {
	s, ok := argument.(string)
	if !ok {
		return nil, fmt.Errorf("%s is not a string", text(argument))
	}
	parts, err := literals(s)
	if err != nil {
		return nil, err
	}
	return func(value any) bool {
		s, ok := value.(string)
		return ok && fits(s, parts)
	}, nil
}

// literals are the texts before, between and after the asterisks.
func literals(s string) ([]string, error) {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
			if i == len(s) || s[i] != '*' && s[i] != '\\' {
				return nil, errors.New(`a backslash stands before neither * nor \`)
			}
			part.WriteByte(s[i])
		case s[i] != '*':
			part.WriteByte(s[i])
		case i > 0 && part.Len() == 0:
			return nil, errors.New("two wildcards in a row")
		default:
			parts = append(parts, part.String())
			part.Reset()
		}
	}
	return append(parts, part.String()), nil
}

// fits reports whether s is these parts with anything between them.
func fits(s string, parts []string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(s, part)
		if !found {
			return false
		}
		s = after
	}
	return true
}
