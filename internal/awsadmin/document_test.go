package awsadmin

import (
	"slices"
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
