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

// kept are the schemas in the documentation, by type.
var kept = map[string]string{"Outcome": "../../docs/outcome.schema.json", "Notification": "../../docs/notification.schema.json"}

func made(t *testing.T, root string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := run([]string{"../../internal/spot", root}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSchemaIsUpToDate(t *testing.T) {
	for root, file := range kept {
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, made(t, root)) {
			t.Errorf("%s is out of date: run make generate", file)
		}
	}
}

// TestConform checks values with every field set, and empty ones.
func TestConform(t *testing.T) {
	full := spot.Outcome{}
	fill(reflect.ValueOf(&full).Elem(), 0)
	full.Result, full.Event.Kind = spot.Drained, spot.SpotTerminate
	for _, c := range []struct {
		name, root string
		value      any
	}{
		{"full outcome", "Outcome", full},
		{"empty outcome", "Outcome", spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Ignored}},
		{"finished", "Notification", full.Finished()},
		{"started", "Notification", full.Started()},
		{"empty notification", "Notification", spot.Notification{Kind: spot.SpotTerminate}},
	} {
		var schema node
		if err := json.Unmarshal(made(t, c.root), &schema); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(b, &value); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range conform("", &schema, &schema, value) {
			t.Errorf("%s: %s", c.name, wrong)
		}
	}
}

// TestViolationsAreFound proves that conform finds violations.
func TestViolationsAreFound(t *testing.T) {
	var schema node
	if err := json.Unmarshal(made(t, "Outcome"), &schema); err != nil {
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
	if s.Ref == "outcome.schema.json" {
		return nil // another test checks outcomes
	}
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
			if s.Values != nil {
				wrong = append(wrong, conform(at+"."+key, root, s.Values, v[key])...)
				continue
			}
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
