package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// credentials are what the function logs in to AWS with. They are taken from the shell, as sam local does: a file of settings
// is no place for them.
var credentials = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

// readVariables reads a function's variables from a file in the form of sam local's --env-vars: an object for each function,
// and one called Parameters for all of them. Of an error it says no values, which may be secrets.
func readVariables(file, function string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the function's variables: %w", err)
	}
	var functions map[string]map[string]any
	if err := json.Unmarshal(text, &functions); err != nil {
		return nil, fmt.Errorf(`reading the function's variables: %s is not in the form {"%s": {"NAME": "value"}}`, file, function)
	}
	own, ok := functions[function]
	if !ok && functions["Parameters"] == nil {
		return nil, fmt.Errorf("reading the function's variables: %s has none for %s; it has them for %s", file, function,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(functions)), ", "), "no function"))
	}
	all := map[string]string{}
	for _, some := range []map[string]any{functions["Parameters"], own} {
		for name, value := range some {
			switch value.(type) {
			case string, float64, bool:
				all[name] = fmt.Sprint(value)
			default:
				return nil, fmt.Errorf("reading the function's variables: in %s, %s is neither text nor a number", file, name)
			}
		}
	}
	return all, nil
}

// withCredentials adds the shell's credentials to variables that have none of their own, and reports whether there are any.
func withCredentials(variables map[string]string, getenv func(string) string) bool {
	for _, name := range credentials { // those of two identities are none of either
		if variables[name] != "" {
			return true
		}
	}
	for _, name := range credentials {
		if value := getenv(name); value != "" {
			variables[name] = value
		}
	}
	return variables[credentials[0]] != ""
}
