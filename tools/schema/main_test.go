package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const kept = "../../docs/outcome.schema.json"

func made(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := run([]string{"../../internal/spot"}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSchemaIsUpToDate(t *testing.T) {
	have, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, made(t)) {
		t.Errorf("%s is out of date: run make generate", kept)
	}
}

// TestOutcomesConform: an outcome with every field set, and an empty one.
func TestOutcomesConform(t *testing.T) {
	var schema node
	if err := json.Unmarshal(made(t), &schema); err != nil {
		t.Fatal(err)
	}
	full := spot.Outcome{}
	fill(reflect.ValueOf(&full).Elem(), 0)
	full.Result, full.Event.Kind = spot.Drained, spot.SpotTerminate
	for name, out := range map[string]spot.Outcome{"full": full,
		"empty": {Version: spot.OutcomeVersion, Result: spot.Ignored}} {
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		var outcome any
		if err := json.Unmarshal(b, &outcome); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range conform("", &schema, &schema, outcome) {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

// TestViolationsAreFound proves that conform finds violations.
func TestViolationsAreFound(t *testing.T) {
	var schema node
	if err := json.Unmarshal(made(t), &schema); err != nil {
		t.Fatal(err)
	}
	for wrong, want := range map[string]string{
		`{"result": "drained"}`:                                      ".version is missing",
		`{"version": 1, "result": "done"}`:                           ".result is none of",
		`{"version": "1", "result": "drained"}`:                      ".version is no integer",
		`{"version": 1, "result": "drained", "x": 1}`:                ".x is not named",
		`{"version": 1, "result": "drained", "pods": [{"name": 1}]}`: ".pods[].name is no string",
	} {
		var outcome any
		if err := json.Unmarshal([]byte(wrong), &outcome); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(conform("", &schema, &schema, outcome), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", wrong, got, want)
		}
	}
}

// fill sets every field with a JSON name to a non-empty value.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Slice:
		if depth < 6 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth+1)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1767225600, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.String:
		v.SetString(map[reflect.Type]string{
			reflect.TypeFor[spot.Result]():        string(spot.Drained),
			reflect.TypeFor[spot.Kind]():          string(spot.SpotStop),
			reflect.TypeFor[spot.ReplaceAction](): string(spot.ReplaceDetach),
			reflect.TypeFor[spot.PodStatus]():     string(spot.PodEvicted),
			reflect.TypeFor[spot.PodAction]():     string(spot.PodEvict),
			reflect.TypeFor[string]():             "x",
		}[v.Type()])
	case reflect.Int:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// conform returns the values that violate the schema or are not in it.
func conform(at string, root, s *node, v any) (wrong []string) {
	for s.Ref != "" {
		s = root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	say := func(format string, args ...any) { wrong = append(wrong, at+" "+fmt.Sprintf(format, args...)) }
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			say("is an object, not %s", s.Type)
			return wrong
		}
		for _, key := range s.Required {
			if _, ok := v[key]; !ok {
				wrong = append(wrong, at+"."+key+" is missing")
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if s.Properties[key] == nil {
				wrong = append(wrong, at+"."+key+" is not named")
				continue
			}
			wrong = append(wrong, conform(at+"."+key, root, s.Properties[key], v[key])...)
		}
	case []any:
		if s.Type != "array" {
			say("is an array, not %s", s.Type)
			return wrong
		}
		for _, one := range v {
			wrong = append(wrong, conform(at+"[]", root, s.Items, one)...)
		}
	case string:
		if s.Type != "string" {
			say("is no %s", s.Type)
		}
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			say("is none of %v", s.Enum)
		}
	case bool:
		if s.Type != "boolean" {
			say("is no %s", s.Type)
		}
	case float64:
		if s.Type != "number" && s.Type != "integer" {
			say("is no %s", s.Type)
		}
	}
	return wrong
}
