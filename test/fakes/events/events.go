package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/castai/kops-spot/test/fakes/events/pattern"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// event is one as targets get it ("AWS service event metadata", EventBridge User Guide).
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

// entry is a PutEventsRequestEntry. Its TraceHeader is not looked at.
type entry struct {
	Time         *float64 // seconds since 1970
	Source       string
	Resources    []string
	DetailType   string
	Detail       string
	EventBusName string
}

// event is what becomes of an entry.
func (e entry) event(region string) event {
	at := time.Now()
	if e.Time != nil {
		at = time.UnixMilli(int64(*e.Time * 1e3))
	}
	return event{Version: "0", ID: string(uuid.NewUUID()), DetailType: e.DetailType, Source: e.Source, Account: account,
		Time: at.UTC().Format(time.RFC3339), Region: region, Resources: append([]string{}, e.Resources...),
		Detail: json.RawMessage(e.Detail)}
}

// putEvents takes events; they go to the rules after the answer, in the order of the request.
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

// route asks every rule of the bus, and tries the targets of those that want the event.
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
		if r.EventPattern == nil { // a schedule's
			continue
		}
		why, err := unwanted(r, body)
		if err != nil {
			return fmt.Errorf("%s: %w", *r.Arn, err)
		}
		if why != "" {
			b.tell(Delivery{EventID: e.ID, Rule: *r.Arn, Reason: why})
			continue
		}
		of := &eventbridge.ListTargetsByRuleInput{Rule: r.Name, EventBusName: r.EventBusName}
		targets, err := client.ListTargetsByRule(ctx, of)
		if err != nil {
			return fmt.Errorf("listing the targets of %s: %w", *r.Arn, err)
		}
		for _, t := range targets.Targets {
			d := Delivery{EventID: e.ID, Rule: *r.Arn, TargetARN: *t.Arn, Delivered: true}
			if err := b.deliver(ctx, *r.Arn, t, body); err != nil {
				d.Delivered, d.Reason = false, err.Error()
			}
			b.tell(d)
		}
	}
	return nil
}

// unwanted says why a rule does not want an event, and nothing if it does.
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

// deliver tries a target: a function that exists and whose policy lets the rule invoke it.
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

// permits reports whether a function's policy lets EventBridge invoke it for a rule. Statements of another form than
// AddPermission gives them permit nothing: better a test that fails than a permission that was never there.
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
		if s.Effect == "Allow" && s.Action == "lambda:InvokeFunction" && s.Principal.Service == "events.amazonaws.com" &&
			len(s.Condition) == 1 && len(s.Condition["ArnLike"]) == 1 && s.Condition["ArnLike"]["AWS:SourceArn"] == rule {
			return true
		}
	}
	return false
}

// encode is for what has a JSON form. Angle brackets and ampersands stay as they are.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
