package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
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

// arrival is an event that has come to a bus.
type arrival struct {
	event
	body     []byte // the whole event, as targets get it
	bus      string
	received time.Time
}

const defaultBus = "default"

func (b *Bridge) newEvent(region string) event {
	return event{Version: "0", ID: newID(), Account: b.options.Account, Region: region, Time: seconds(time.Now()), Resources: []string{}}
}

// arrive is for events made here.
func arrive(e event, bus string) arrival {
	return arrival{event: e, body: encode(e), bus: bus, received: time.Now()}
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

// Deliver is an event that a service of AWS sends, aws.ec2 for example, to the account's default bus in the event's
// region. When it returns, every target has been tried once.
func (b *Bridge) Deliver(ctx context.Context, body []byte) error {
	a, err := b.readEvent(body)
	if err != nil {
		return fmt.Errorf("delivering an event: %w", err)
	}
	if err := b.route(ctx, a); err != nil {
		return fmt.Errorf("delivering event %s: %w", a.ID, err)
	}
	return nil
}

func (b *Bridge) readEvent(body []byte) (arrival, error) {
	a := arrival{bus: defaultBus, received: time.Now()}
	if err := json.Unmarshal(body, &a.event); err != nil {
		return arrival{}, err
	}
	for _, field := range []struct{ name, value string }{
		{"version", a.Version}, {"id", a.ID}, {"detail-type", a.DetailType}, {"source", a.Source},
		{"account", a.Account}, {"time", a.Time}, {"region", a.Region},
	} {
		if field.value == "" {
			return arrival{}, fmt.Errorf("it has no %s", field.name)
		}
	}
	if a.Resources == nil || !isObject(a.Detail) {
		return arrival{}, errors.New("it must have the array resources and the object detail")
	}
	if a.Account != b.options.Account {
		return arrival{}, fmt.Errorf("it is of account %s, and this is %s", a.Account, b.options.Account)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return arrival{}, err
	}
	a.body = compact.Bytes()
	return a, nil
}

// Tick fires a rule of the default bus that has a schedule, now. When it returns, every target has been tried once.
func (b *Bridge) Tick(ctx context.Context, name string) error {
	region := b.options.Region
	out, err := b.moto.events(region).DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: &name})
	if err != nil {
		return fmt.Errorf("firing rule %s: %w", name, err)
	}
	if out.ScheduleExpression == nil {
		return fmt.Errorf("firing rule %s: it has no schedule", name)
	}
	r := rule{name: name, arn: *out.Arn, state: out.State}
	e := b.newEvent(region)
	e.Source, e.DetailType, e.Resources, e.Detail = "aws.events", "Scheduled Event", []string{r.arn}, json.RawMessage(`{}`)
	a := arrive(e, defaultBus)
	if r.disabled() {
		b.journal.add(Delivery{EventID: e.ID, Rule: r.arn, Reason: "the rule is disabled"})
		return nil
	}
	if err := b.toTargets(ctx, r, a); err != nil {
		return fmt.Errorf("firing rule %s: %w", name, err)
	}
	return nil
}

// seconds is a time as events have it.
func seconds(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func isObject(document []byte) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(document, &members) == nil && members != nil
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
