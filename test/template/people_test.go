package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/fakes/events/pattern"
)

// results are all results of the function.
func results(t *testing.T) []string {
	t.Helper()
	var schema struct {
		Defs struct{ Result struct{ Enum []string } } `json:"$defs"`
	}
	b, err := os.ReadFile(filepath.Join(Root(), "docs", "outcome.schema.json"))
	if err == nil {
		err = json.Unmarshal(b, &schema)
	}
	if err != nil || len(schema.Defs.Result.Enum) == 0 {
		t.Fatalf("docs/outcome.schema.json has no results: %v", err)
	}
	return append(schema.Defs.Result.Enum, string(app.Ready), string(app.NotReady))
}

// TestNotifyRules checks which notifications people get, and that the rules of other clusters do not match.
func TestNotifyRules(t *testing.T) {
	matching := func(id string, events map[string]spot.Notification) (matched []string) {
		rule := stack(t, everything).Resources[id].Properties
		target := rule["Targets"].([]any)[0].(map[string]any)
		if want := arn("sns", "cast-kops-prod-example-com-7405b0253a21-notifications"); target["Arn"] != want || target["DeadLetterConfig"] == nil {
			t.Errorf("%s has the target %v, want %s with a dead-letter queue", id, target, want)
		}
		text, err := json.Marshal(rule["EventPattern"])
		must(t, err)
		p, err := pattern.Parse(text)
		must(t, err)
		for name, n := range events {
			detail, err := n.Detail()
			must(t, err)
			event, err := json.Marshal(map[string]any{"source": spot.NotificationSource, "detail-type": n.Name, "detail": json.RawMessage(detail)})
			must(t, err)
			ok, err := p.Matches(event)
			must(t, err)
			if ok {
				matched = append(matched, name)
			}
		}
		slices.Sort(matched)
		return matched
	}
	events, failures := map[string]spot.Notification{}, []string{}
	for _, result := range results(t) {
		out := spot.Outcome{Result: spot.Result(result), Cluster: cluster}
		events[result] = out.Finished()
		if out.Result.Failed() {
			failures = append(failures, result)
		}
		out.Cluster = "other.example.com"
		events["other: "+result] = out.Finished()
	}
	slices.Sort(failures)
	events["started"], events["other: started"] = spot.Outcome{Cluster: cluster}.Started(), spot.Outcome{Cluster: "other.example.com"}.Started()
	for id, want := range map[string][]string{"NotifyStartedRule": {"started"}, "NotifyFinishedRule": failures} {
		if got := matching(id, events); !slices.Equal(got, want) {
			t.Errorf("%s matches %q, want %q", id, got, want)
		}
	}
	for set, want := range map[string]string{byDefault: "DISABLED", everything: "ENABLED"} {
		if got := stack(t, set).Resources["NotifyStartedRule"].Properties["State"]; got != want {
			t.Errorf("%s: the rule for the start is %v, want %s", set, got, want)
		}
	}
}

// TestOwnEventsDoNotInvokeTheFunction: no rule that targets the function matches its own notifications.
func TestOwnEventsDoNotInvokeTheFunction(t *testing.T) {
	for id, r := range stack(t, everything).Resources {
		if r.Type != "AWS::Events::Rule" || r.Properties["EventPattern"] == nil {
			continue
		}
		sources := r.Properties["EventPattern"].(map[string]any)["source"].([]any)
		for _, target := range r.Properties["Targets"].([]any) {
			if strings.HasPrefix(target.(map[string]any)["Arn"].(string), arn("lambda", "")) && slices.Contains(sources, any(spot.NotificationSource)) {
				t.Errorf("%s would send the function its own notifications", id)
			}
		}
	}
}
