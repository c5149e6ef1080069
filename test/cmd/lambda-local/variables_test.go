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

// TestCredentials: they are of one identity, or it is said that there are none; the region is where the AWS CLI looks for it.
func TestCredentials(t *testing.T) {
	t.Parallel()
	own := variablesFile(t, `{"Fn": {"AWS_SECRET_ACCESS_KEY": "own", "AWS_SESSION_TOKEN": "own"}}`)
	shell := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "eu-west-1"}
	set, err := parse([]string{"-name", "Fn", "-env-file", own}, func(name string) string { return shell[name] }, io.Discard)
	want := map[string]string{"AWS_SECRET_ACCESS_KEY": "own", "AWS_SESSION_TOKEN": "own"}
	if err != nil || !reflect.DeepEqual(set.function.Environment, want) || set.region != "eu-west-1" {
		t.Errorf("%v in %s, %v; want %v in eu-west-1", set.function.Environment, set.region, err, want)
	}
	var said strings.Builder
	if _, err := parse([]string{"-name", "Fn", "-env-file", variablesFile(t, `{"Fn": {}}`)}, noenv, &said); err != nil ||
		!strings.Contains(said.String(), "no AWS credentials") {
		t.Errorf("that there are none is not said: %v, %q", err, said.String())
	}
}

// TestVariablesThatAreNone: it is said what is wrong, and no value, which may be a secret.
func TestVariablesThatAreNone(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	for name, c := range map[string]struct{ file, want string }{
		"no file":            {"/nonexistent/env.json", "/nonexistent/env.json"},
		"no JSON":            {variablesFile(t, `KEY=`+secret), `is not in the form {"Fn": {"NAME": "value"}}`},
		"without functions":  {variablesFile(t, `{"KEY": "`+secret+`"}`), "is not in the form"},
		"another function":   {variablesFile(t, `{"B": {"KEY": "`+secret+`"}, "A": {}}`), "none for Fn; it has them for A, B"},
		"no function at all": {variablesFile(t, `{}`), "none for Fn; it has them for no function"},
		"no plain value":     {variablesFile(t, `{"Fn": {"KEY": ["`+secret+`"]}}`), "KEY is neither text nor a number"},
	} {
		_, err := parse([]string{"-name", "Fn", "-env-file", c.file}, noenv, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v does not say %q, or too much", name, err, c.want)
		}
	}
}
