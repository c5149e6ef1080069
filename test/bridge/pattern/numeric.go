package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// largest is the size of the numbers that numeric compares: from -5.0e9 to +5.0e9 (Comparison operators).
const largest = 5.0e9

// numeric reads [operator, number] or a range, its lower end first: [">", 0, "<=", 5].
func numeric(argument any) (test, error) {
	list, ok := argument.([]any)
	if !ok || len(list) != 2 && len(list) != 4 {
		return nil, fmt.Errorf("%s is not a list of an operator and a number, or of two of each", text(argument))
	}
	first, low, err := bound(list[0], list[1])
	if err != nil {
		return nil, err
	}
	if len(list) == 2 {
		return onNumbers(first), nil
	}
	second, high, err := bound(list[2], list[3])
	if err != nil {
		return nil, err
	}
	if !isOneOf(list[0], ">", ">=") || !isOneOf(list[2], "<", "<=") || low >= high {
		return nil, fmt.Errorf("%s is not a range with its lower end first", text(argument))
	}
	return onNumbers(func(n float64) bool { return first(n) && second(n) }), nil
}

func bound(operator, operand any) (holds func(float64) bool, than float64, err error) {
	number, ok := operand.(json.Number)
	if !ok {
		return nil, 0, fmt.Errorf("%s is not a number", text(operand))
	}
	than, err = number.Float64()
	if err != nil || math.Abs(than) > largest {
		return nil, 0, fmt.Errorf("%s is not between -5.0e9 and 5.0e9", number)
	}
	switch operator {
	case "=":
		return func(n float64) bool { return n == than }, than, nil
	case "<":
		return func(n float64) bool { return n < than }, than, nil
	case "<=":
		return func(n float64) bool { return n <= than }, than, nil
	case ">":
		return func(n float64) bool { return n > than }, than, nil
	case ">=":
		return func(n float64) bool { return n >= than }, than, nil
	}
	return nil, 0, errors.New("unknown operator " + text(operator))
}

func isOneOf(value any, options ...string) bool {
	for _, option := range options {
		if value == option {
			return true
		}
	}
	return false
}

// onNumbers holds for numbers alone; "7" in quotes is none. Beyond the largest there is nothing to compare with.
func onNumbers(holds func(float64) bool) test {
	return func(value any) bool {
		number, ok := value.(json.Number)
		if !ok {
			return false
		}
		n, err := number.Float64()
		return err == nil && math.Abs(n) <= largest && holds(n)
	}
}
