package template

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/fakes/events/pattern"
)

// ruleOf maps a kind of event to its rule.
var ruleOf = map[spot.Kind]string{
	spot.SpotTerminate: "SpotWarning", spot.SpotStop: "SpotWarning", spot.SpotHibernate: "SpotWarning",
	spot.Rebalance: "Rebalance", spot.LifecycleTerminate: "Lifecycle",
	spot.ScheduledChange: "Health", spot.StateChange: "StateChange", spot.LaunchFailed: "LaunchFailed",
}

// patterns returns the patterns of the rules.
func patterns(t *testing.T, s *Stack) map[string]*pattern.Pattern {
	t.Helper()
	all := map[string]*pattern.Pattern{}
	for id, r := range s.Resources {
		if r.Type != "AWS::Events::Rule" || r.Properties["EventPattern"] == nil || isForPeople(r.Properties["Name"].(string)) {
			continue
		}
		document, err := json.Marshal(r.Properties["EventPattern"])
		must(t, err)
		if all[strings.TrimPrefix(id, "SpotHandlerFunction")], err = pattern.Parse(document); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	return all
}

// TestEachEventMatchesOneRule: the rule of its kind. Events that need no action match no rule, where a pattern can
// express it.
func TestEachEventMatchesOneRule(t *testing.T) {
	rules := patterns(t, stack(t, byDefault))
	if len(rules) != len(ruleNames)-1 { // the self-check has no pattern
		t.Errorf("there are %d patterns, want %d", len(rules), len(ruleNames)-1)
	}
	samples, err := filepath.Glob(filepath.Join(Root(), "internal", "eventbridge", "testdata", "*.json"))
	if err != nil || len(samples) == 0 {
		t.Fatalf("no sample events found: %v", err)
	}
	seen := map[string]bool{}
	for _, path := range samples {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			event, err := os.ReadFile(path)
			must(t, err)
			var got []string
			for rule, p := range rules {
				wanted, err := p.Matches(event)
				must(t, err)
				if wanted {
					got = append(got, rule)
					seen[rule] = true
				}
			}
			want, required := expected(t, event)
			if len(got) == 0 && !required {
				return
			}
			if want == "" && len(got) > 0 || want != "" && !slices.Equal(got, []string{want}) {
				t.Errorf("it matches %q, want %q", got, want)
			}
		})
	}
	for rule := range rules {
		if !seen[rule] {
			t.Errorf("no sample matches the rule %s", rule)
		}
	}
}

// expected returns the rule for an event as the decoder interprets it, and whether the rule is required to match.
func expected(t *testing.T, event []byte) (rule string, required bool) {
	t.Helper()
	e, err := eventbridge.Decode(event)
	var unknown *eventbridge.UnknownError
	var envelope struct {
		Source     string
		DetailType string `json:"detail-type"`
	}
	switch {
	case errors.As(err, &unknown):
		must(t, json.Unmarshal(event, &envelope))
		if envelope.DetailType == "AWS Health Event" { // the reason to ignore it may be where a pattern cannot look
			return "Health", false
		}
		return "", true
	case err != nil:
		t.Fatal(err)
	case e.SelfCheck:
		must(t, json.Unmarshal(event, &envelope))
		if envelope.Source == eventbridge.SourceSelfCheck {
			return "Rehearsal", true
		}
		return "", true // the schedule sends it without a pattern
	}
	in := e.Interruptions[0]
	switch {
	case in.Rehearsal:
		return "Rehearsal", true
	case in.State == "stopping", in.State == "shutting-down": // no clean-up before the instance has stopped or terminated
		return "", true
	}
	return ruleOf[in.Kind], true
}
