package awsadmin

import (
	"slices"
	"strings"
	"testing"
)

func TestSameDocument(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"a": [1, 2], "b": {"c": "d"}}`, "{\"b\":{\"c\":\"d\"},\n\"a\":[1,2]}", true},
		{`{"a": [1, 2]}`, `{"a": [2, 1]}`, false},
		{`{"a": "b"}`, `{"a": "c"}`, false},
		{"no JSON", "no JSON", true},
		{"no JSON", `{}`, false},
	} {
		if got := SameDocument(c.a, c.b); got != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
	}
}

func TestDiffDocuments(t *testing.T) {
	got := DiffDocuments(`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7}`, `{"a":1,"b":2,"c":3,"d":9,"e":5,"f":6,"g":7}`)
	want := []string{"  ...", `    "a": 1,`, `    "b": 2,`, `    "c": 3,`, `-   "d": 4,`, `+   "d": 9,`, `    "e": 5,`, `    "f": 6,`, `    "g": 7`}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestNotAllowed(t *testing.T) {
	const wanted = `{"Statement": [{"Effect": "Allow", "Action": ["a:Get", "a:Put"], "Resource": "arn:x/1"}, {"Effect": "Deny", "Action": "a:Del", "Resource": "*"}]}`
	for has, want := range map[string]string{
		``: "a:Get on arn:x/1, a:Put on arn:x/1",
		`{"Statement": [{"Effect": "Allow", "Action": "a:Get", "Resource": ["arn:x/2", "arn:x/1"]}]}`: "a:Put on arn:x/1",
		`{"Statement": [{"Effect": "Allow", "Action": "a:*", "Resource": "arn:x/*"}]}`:                "",
		`{"Statement": [{"Effect": "Deny", "Action": "a:*", "Resource": "*"}]}`:                       "a:Get on arn:x/1, a:Put on arn:x/1",
		`{"Statement": [{"Effect": "Allow", "Action": ["a:Get", "a:Put"], "Resource": "arn:x"}]}`:     "a:Get on arn:x/1, a:Put on arn:x/1",
	} {
		if got := strings.Join(NotAllowed(wanted, []string{"{}", has}), ", "); got != want {
			t.Errorf("%s: %q; want %q", has, got, want)
		}
	}
}

func TestWithoutStatement(t *testing.T) {
	const has = `{"Version": "v", "Statement": [{"Sid": "A", "Resource": "x"}, {"Sid": "B"}]}`
	for sid, want := range map[string]string{"B": `{"Version": "v", "Statement": [{"Sid": "A", "Resource": "x"}]}`, "C": has} {
		if got, err := WithoutStatement(has, sid); err != nil || !SameDocument(got, want) {
			t.Errorf("without %s: %s, %v; want %s", sid, got, err, want)
		}
	}
}
