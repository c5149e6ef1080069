package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
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

// matches reports whether a rule's pattern matches a notification.
func matches(t *testing.T, rule map[string]any, n spot.Notification) bool {
	t.Helper()
	text, err := json.Marshal(rule["EventPattern"])
	must(t, err)
	p, err := pattern.Parse(text)
	must(t, err)
	detail, err := n.Detail()
	must(t, err)
	event, err := json.Marshal(map[string]any{"source": spot.NotificationSource, "detail-type": n.Name, "detail": json.RawMessage(detail)})
	must(t, err)
	ok, err := p.Matches(event)
	must(t, err)
	return ok
}

// TestNotifyRules checks which notifications people get, and that the rules of other clusters do not match.
func TestNotifyRules(t *testing.T) {
	matching := func(id string, events map[string]spot.Notification) (matched []string) {
		rule := stack(t, everything).Resources[id].Properties
		target := rule["Targets"].([]any)[0].(map[string]any)
		if want := arn("sns", "cast-kops-prod-example-com-7405b0253a21-notifications"); target["Arn"] != want || target["DeadLetterConfig"] == nil {
			t.Errorf("%s has the target %v, want %s with a dead-letter queue", id, target, want)
		}
		for name, n := range events {
			if matches(t, rule, n) {
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

// TestStorm counts the messages to each receiver for 50 warnings. docs/notifications.md has the numbers.
func TestStorm(t *testing.T) {
	for started, want := range map[string][2]int{"DISABLED": {0, 5}, "ENABLED": {50, 55}} {
		resources := shared.Templates[byDefault].Resolve(with(Parameters{"NotifyUrl": "json+https://example.com/hook", "NotifyStarted": started})).Resources
		for i, problems := range []int{0, 5} {
			messages := map[string]int{}
			for warning := range 50 {
				out := spot.Outcome{Result: spot.Drained, Cluster: cluster}
				if warning < problems {
					out.Result = spot.Incomplete
				}
				for _, id := range []string{"NotifyStartedRule", "NotifyFinishedRule"} {
					for _, n := range []spot.Notification{out.Started(), out.Finished()} {
						for _, target := range resources[id].Properties["Targets"].([]any) {
							if matches(t, resources[id].Properties, n) && resources[id].Properties["State"] != "DISABLED" {
								messages[target.(map[string]any)["Id"].(string)]++
							}
						}
					}
				}
			}
			if messages["topic"] != want[i] || messages["url"] != want[i] {
				t.Errorf("NotifyStarted=%s, %d problems: got %v, want %d messages to each", started, problems, messages, want[i])
			}
		}
	}
}

// TestReceivers checks what EventBridge posts where, for each format, and what it may do.
func TestReceivers(t *testing.T) {
	const name = "cast-kops-prod-example-com-7405b0253a21"
	key := []any{map[string]any{"Key": "routing_key", "Value": pagerDutyKey, "IsValueSecret": true}}
	for format, c := range map[string]struct {
		url, endpoint string
		body          any
		input         string // the beginning of the template, or the path
	}{
		"slack":     {"hooks.slack.com/services/T0/B0/x", "https://hooks.slack.com/services/T0/B0/x", nil, `{"text": <text>}`},
		"teams":     {"example.com:443/a?b=c%2F", "https://example.com:443/a?b=c%2F", nil, `{"type": "message", `},
		"pagerduty": {pagerDutyKey + "@events.eu.pagerduty.com/v2/enqueue", "https://events.eu.pagerduty.com/v2/enqueue", key, `{"event_action": "trigger", `},
		"json":      {"example.com/hook", "https://example.com/hook", nil, "$.detail"},
	} {
		r := shared.Templates[byDefault].Resolve(with(Parameters{"NotifyUrl": format + "+https://" + c.url})).Resources
		connection, destination := r["NotifyConnection"].Properties, r["NotifyDestination"].Properties
		parameters := connection["AuthParameters"].(map[string]any)
		var body any
		if p, is := parameters["InvocationHttpParameters"].(map[string]any); is {
			body = p["BodyParameters"]
		}
		if connection["Name"] != name+"."+format || connection["AuthorizationType"] != "API_KEY" || !reflect.DeepEqual(body, c.body) ||
			!reflect.DeepEqual(parameters["ApiKeyAuthParameters"], map[string]any{"ApiKeyName": "X-Kops-Spot", "ApiKeyValue": cluster}) {
			t.Errorf("%s: the connection is %v", format, connection)
		}
		if destination["InvocationEndpoint"] != c.endpoint || destination["HttpMethod"] != "POST" ||
			destination["ConnectionArn"] != arn("events", "connection/"+name+"."+format+"/"+uniqueID) {
			t.Errorf("%s: the destination is %v", format, destination)
		}
		at := arn("events", "api-destination/"+name+"/"+uniqueID)
		policies := r["NotifyRole"].Properties["Policies"].([]any)
		may := policies[0].(map[string]any)["PolicyDocument"].(map[string]any)["Statement"]
		if want := []any{map[string]any{"Effect": "Allow", "Action": "events:InvokeApiDestination", "Resource": at}}; len(policies) != 1 || !reflect.DeepEqual(may, want) {
			t.Errorf("%s: the role may %v, want %v", format, policies, want)
		}
		for _, id := range []string{"NotifyStartedRule", "NotifyFinishedRule"} {
			targets := r[id].Properties["Targets"].([]any)
			if len(targets) != 2 {
				t.Fatalf("%s: %s has %d targets, want 2", format, id, len(targets))
			}
			target := targets[1].(map[string]any)
			input, _ := target["InputPath"].(string)
			if by, is := target["InputTransformer"].(map[string]any); is {
				input += by["InputTemplate"].(string)
			}
			if target["Arn"] != at || target["RoleArn"] != "arn:aws:iam::"+Account+":role/"+name+"-notify" || !strings.HasPrefix(input, c.input) ||
				!reflect.DeepEqual(target["RetryPolicy"], targets[0].(map[string]any)["RetryPolicy"]) ||
				!reflect.DeepEqual(target["DeadLetterConfig"], targets[0].(map[string]any)["DeadLetterConfig"]) {
				t.Errorf("%s: %s has the target %v", format, id, target)
			}
		}
	}
	for id, r := range stack(t, byDefault).Resources {
		if IsReceiver(r.Type) || id == "NotifyRole" || id == "NotifyStartedRule" && len(r.Properties["Targets"].([]any)) > 1 {
			t.Errorf("without NotifyUrl, there is %s: %v", id, r.Properties)
		}
	}
	if trust := stack(t, everything).Resources["NotifyRole"].Properties; trust["PermissionsBoundary"] != boundary {
		t.Errorf("the role has the permissions boundary %v", trust["PermissionsBoundary"])
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
