package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/castai/kops-spot/test/fakes/events/pattern"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// event is an event as targets get it ("AWS service event metadata", EventBridge User Guide).
type event struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       string          `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// entry is a PutEventsRequestEntry without its TraceHeader.
type entry struct {
	Time         *float64 // seconds since 1970
	Source       string
	Resources    []string
	DetailType   string
	Detail       string
	EventBusName string
}

// event converts an entry.
func (e entry) event(region string) event {
	at := time.Now()
	if e.Time != nil {
		at = time.UnixMilli(int64(*e.Time * 1e3))
	}
	return event{Version: "0", ID: string(uuid.NewUUID()), DetailType: e.DetailType, Source: e.Source, Account: account,
		Time: at.UTC().Format(time.RFC3339), Region: region, Resources: append([]string{}, e.Resources...),
		Detail: json.RawMessage(e.Detail)}
}

// putEvents accepts events and delivers them after the response, in order.
func (b *Bridge) putEvents(w http.ResponseWriter, r *http.Request) {
	var in struct{ Entries []entry }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	type result struct {
		EventID string `json:"EventId"`
	}
	var out struct {
		FailedEntryCount int
		Entries          []result
	}
	var events []event
	for _, one := range in.Entries {
		var detail map[string]any
		if json.Unmarshal([]byte(one.Detail), &detail) != nil || one.Source == "" || one.DetailType == "" {
			refuse(w, http.StatusBadRequest, "ValidationException", "an entry has no source, no type or no detail")
			return
		}
		e := one.event(b.options.Region)
		events, out.Entries = append(events, e), append(out.Entries, result{e.ID})
	}
	b.start(func() error {
		for i, e := range events {
			if err := b.route(b.lifetime, in.Entries[i].EventBusName, e); err != nil {
				return fmt.Errorf("delivering event %s: %w", e.ID, err)
			}
		}
		return nil
	})
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Write(encode(out))
}

// route evaluates every rule of the bus and delivers the event to the targets of those that match.
func (b *Bridge) route(ctx context.Context, bus string, e event) error {
	client, body := eventbridge.NewFromConfig(b.moto), encode(e)
	in := &eventbridge.ListRulesInput{}
	if bus != "" {
		in.EventBusName = &bus
	}
	rules, err := client.ListRules(ctx, in)
	if err != nil {
		return fmt.Errorf("listing the rules of bus %s: %w", bus, err)
	}
	if rules.NextToken != nil {
		return fmt.Errorf("bus %s has more rules than the bridge reads", bus)
	}
	for _, r := range rules.Rules {
		if r.EventPattern == nil { // a schedule
			continue
		}
		why, err := unwanted(r, body)
		if err != nil {
			return fmt.Errorf("%s: %w", *r.Arn, err)
		}
		if why != "" {
			b.record(Delivery{EventID: e.ID, Rule: *r.Arn, Reason: why})
			continue
		}
		of := &eventbridge.ListTargetsByRuleInput{Rule: r.Name, EventBusName: r.EventBusName}
		targets, err := client.ListTargetsByRule(ctx, of)
		if err != nil {
			return fmt.Errorf("listing the targets of %s: %w", *r.Arn, err)
		}
		for _, t := range targets.Targets {
			send := func() error {
				d := Delivery{EventID: e.ID, Rule: *r.Arn, TargetARN: *t.Arn, Delivered: true}
				var err error
				switch {
				case strings.HasPrefix(*t.Arn, "arn:aws:sns:"):
					d.Input, err = b.notify(ctx, t, body)
				case strings.Contains(*t.Arn, ":api-destination/"):
					d.Input, err = b.post(ctx, *r.Arn, t, body)
				default:
					err = b.deliver(ctx, *r.Arn, t, body)
				}
				if err != nil {
					d.Delivered, d.Reason = false, err.Error()
				}
				b.record(d)
				return nil
			}
			if strings.Contains(*t.Arn, ":api-destination/") {
				b.start(send) // retries delay nothing else
			} else {
				send()
			}
		}
	}
	return nil
}

// unwanted returns the reason if a rule does not match an event.
func unwanted(r types.Rule, body []byte) (string, error) {
	if r.State == types.RuleStateDisabled {
		return "the rule is disabled", nil
	}
	p, err := pattern.Parse([]byte(*r.EventPattern))
	if err != nil {
		return "", err
	}
	matches, err := p.Matches(body)
	if err != nil || matches {
		return "", err
	}
	return "the pattern does not match", nil
}

// notify publishes an event, transformed, to a topic of moto.
func (b *Bridge) notify(ctx context.Context, t types.Target, body []byte) (message string, err error) {
	if message, err = inputOf(t, body); err != nil {
		return "", err
	}
	form := url.Values{"Action": {"Publish"}, "Version": {"2010-03-31"}, "TopicArn": {*t.Arn}, "Message": {message}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.options.Moto, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", b.signature("sns"))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("publishing to %s: %s", *t.Arn, response.Status)
	}
	return message, nil
}

// inputOf returns what a target gets of an event ("Amazon EventBridge input transformation", EventBridge User Guide): a
// variable outside of quotes is replaced by its JSON, and one within them by its string, which is not escaped. Within
// them, a path that the event lacks is empty.
func inputOf(t types.Target, body []byte) (string, error) {
	if t.InputPath != nil {
		value, err := valueAt(*t.InputPath, body)
		if value == nil {
			err = errors.Join(err, fmt.Errorf("the event has no %s", *t.InputPath))
		}
		return string(encode(value)), err
	}
	if t.InputTransformer == nil {
		return "", errors.New("the bridge notifies only with an input path or an input transformer")
	}
	values := map[string]any{}
	for name, path := range t.InputTransformer.InputPathsMap {
		value, err := valueAt(path, body)
		if err != nil {
			return "", err
		}
		values[name] = value
	}
	var out strings.Builder
	quoted := false
	for rest := aws.ToString(t.InputTransformer.InputTemplate); rest != ""; {
		name, after, ok := strings.Cut(strings.TrimPrefix(rest, "<"), ">")
		value, is := values[name]
		text, isText := value.(string)
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			out.WriteString(rest[:2])
			rest = rest[2:]
			continue
		case rest[0] != '<' || !ok || !is:
			quoted = quoted != (rest[0] == '"')
			out.WriteByte(rest[0])
			rest = rest[1:]
			continue
		case quoted && (isText || value == nil):
			out.WriteString(text) // not escaped
		case quoted:
			return "", fmt.Errorf("<%s> is in quotes, but no string", name)
		case value == nil:
			return "", fmt.Errorf("the event has no %s", t.InputTransformer.InputPathsMap[name])
		default:
			out.Write(encode(value))
		}
		rest = after
	}
	return out.String(), nil
}

// valueAt returns the value at a path such as $.detail.text, or nil.
func valueAt(path string, body []byte) (at any, err error) {
	if err := json.Unmarshal(body, &at); err != nil {
		return nil, err
	}
	for key := range strings.SplitSeq(strings.TrimPrefix(path, "$."), ".") {
		object, _ := at.(map[string]any)
		at = object[key]
	}
	return at, nil
}

// deliver sends an event to a target: a function that exists and whose policy allows the rule.
func (b *Bridge) deliver(ctx context.Context, rule string, t types.Target, body []byte) error {
	if t.Input != nil || t.InputPath != nil || t.InputTransformer != nil {
		return errors.New("the bridge hands on the whole event, and knows no input of a target's own")
	}
	service, err := b.functions.service(ctx, fakelambda.NameOf(*t.Arn))
	if err != nil {
		return err
	}
	policy, err := lambda.NewFromConfig(b.moto).GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: t.Arn})
	if err != nil {
		return fmt.Errorf("reading the policy of %s: %w", *t.Arn, err)
	}
	if !permits(aws.ToString(policy.Policy), rule) {
		return fmt.Errorf("the policy of %s does not let %s invoke it", *t.Arn, rule)
	}
	_, err = service.Invoke(ctx, *t.Arn, fakelambda.Event, body)
	return err
}

// permits reports whether a function's policy allows EventBridge to invoke it for a rule. Only statements in the form
// of AddPermission count, so an unexpected form fails a test.
func permits(policy, rule string) bool {
	var document struct {
		Statement []struct {
			Effect, Action string
			Principal      struct{ Service string }
			Condition      map[string]map[string]string
		}
	}
	if json.Unmarshal([]byte(policy), &document) != nil {
		return false
	}
	for _, s := range document.Statement {
		if s.Effect == "Allow" && s.Action == "lambda:InvokeFunction" &&
			s.Principal.Service == "events.amazonaws.com" &&
			len(s.Condition) == 1 && len(s.Condition["ArnLike"]) == 1 &&
			s.Condition["ArnLike"]["AWS:SourceArn"] == rule {
			return true
		}
	}
	return false
}

// encode encodes JSON without escaping angle brackets and ampersands.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
