package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func variablesFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "env.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestVariables: what the function gets is what sam local would give it.
func TestVariables(t *testing.T) {
	t.Parallel()
	file := variablesFile(t, `{"Parameters": {"A": "all", "B": "all"}, "Fn": {"B": "own", "C": "own", "N": 60}, "Other": {"A": "other"}}`)
	shell := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_PROFILE": "prod", "PATH": "/bin"}
	getenv := func(name string) string { return shell[name] }
	for name, c := range map[string]struct {
		args []string
		want map[string]string
	}{
		"the file, and the shell's credentials": {nil,
			map[string]string{"A": "all", "B": "own", "C": "own", "N": "60", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}},
		"a flag overrules both": {[]string{"-env", "B=flag", "-env", "AWS_ACCESS_KEY_ID=other"},
			map[string]string{"A": "all", "B": "flag", "C": "own", "N": "60", "AWS_ACCESS_KEY_ID": "other"}},
	} {
		set, err := parse(append([]string{"-name", "Fn", "-env-file", file}, c.args...), getenv, io.Discard)
		if err != nil || !reflect.DeepEqual(set.function.Environment, c.want) {
			t.Errorf("%s: %v %v, want %v", name, set.function.Environment, err, c.want)
		}
	}
}

// TestVariablesThatAreNone: it is said what is wrong, and no value, which may be a secret.
func TestVariablesThatAreNone(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	for name, c := range map[string]struct{ file, want string }{
		"no file":           {"/nonexistent/env.json", "/nonexistent/env.json"},
		"no JSON":           {variablesFile(t, `KEY=`+secret), `is not in the form {"Fn": {"NAME": "value"}}`},
		"without functions": {variablesFile(t, `{"KEY": "`+secret+`"}`), "is not in the form"},
		"another function":  {variablesFile(t, `{"B": {"KEY": "`+secret+`"}, "A": {}}`), "none for Fn, but for: A, B"},
		"no plain value":    {variablesFile(t, `{"Fn": {"KEY": ["`+secret+`"]}}`), "KEY is neither text nor a number"},
	} {
		_, err := parse([]string{"-name", "Fn", "-env-file", c.file}, noenv, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v does not say %q, or too much", name, err, c.want)
		}
	}
}
