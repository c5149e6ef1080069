package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// wanted is the pattern of the tests' own events.
const wanted = `{"source": ["test"]}`

// TestAnEventGoesThroughItsRuleToTheFunctionAndOnToItsDestination, all with AWS's own clients at the bridge.
func TestAnEventGoesThroughItsRuleToTheFunctionAndOnToItsDestination(t *testing.T) {
	w := newWorld(t, nil)
	fn := w.function(nil)
	w.destinations(w.closedQueue("done"), w.closedQueue("failed"), 0)
	rule := w.rule("mine", `{"source": ["test"], "detail": {"state": [{"prefix": "term"}]}}`, types.Target{Arn: &fn})
	w.allow(rule)
	other := w.rule("other", `{"source": ["other"]}`, types.Target{Arn: &fn})

	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	out, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{{
		Source: aws.String("test"), DetailType: aws.String("Test <1>"), Detail: aws.String(`{"state": "terminated", "n": 1.0}`),
		Resources: []string{"arn:a"}, Time: &when}}})
	if err != nil || out.FailedEntryCount != 0 {
		t.Fatalf("got %+v, %v", out, err)
	}
	id := *out.Entries[0].EventId
	messages := w.messages("done")
	if len(messages) != 1 || len(w.messages("failed")) != 0 {
		t.Fatalf("%d messages, want 1", len(messages))
	}
	record := decode[lambdalocal.Record](t, *messages[0].Body)
	want := event{Version: "0", ID: id, DetailType: "Test <1>", Source: "test", Account: testAccount, Time: "2026-02-03T04:05:06Z",
		Region: w.region, Resources: []string{"arn:a"}, Detail: json.RawMessage(`{"state":"terminated","n":1.0}`)}
	for what, payload := range map[string]json.RawMessage{"request": record.RequestPayload, "response": record.ResponsePayload} {
		if got := decode[event](t, string(payload)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %s, want %+v", what, payload, want)
		}
	}
	if c := record.RequestContext; c.Condition != lambdalocal.Success || c.FunctionARN != fn+":$LATEST" {
		t.Errorf("the record is of %+v", c)
	}
	wantJournal := []Delivery{
		{EventID: id, Rule: rule, Target: "target-1", TargetARN: fn, Delivered: true, Attempts: 1, RequestID: record.RequestContext.RequestID},
		{EventID: id, Rule: other, Reason: "the pattern does not match"},
	}
	if got := w.bridge.Deliveries(); !reflect.DeepEqual(got, wantJournal) {
		t.Errorf("the journal has %+v, want %+v", got, wantJournal)
	}
}

func TestPutEventsRefusesEntriesOneByOne(t *testing.T) {
	w := newWorld(t, nil)
	w.queue("q")
	w.rule("all", `{"account": ["`+testAccount+`"]}`, types.Target{Arn: aws.String(w.arn("sqs", "q"))})
	entry := func(source, detailType, detail string) types.PutEventsRequestEntry {
		return types.PutEventsRequestEntry{Source: &source, DetailType: &detailType, Detail: &detail}
	}
	entries := []types.PutEventsRequestEntry{
		entry("test", "Test", `{}`), entry("aws.ec2", "Test", `{}`), entry("", "Test", `{}`), entry("test", "", `{}`), entry("test", "Test", ""),
		entry("test", "Test", `{"a"`), entry("test", "Test", `["a"]`), entry("test", "Test", `null`), entry("awsome", "Test", `{}`),
	}
	want := []string{"", "NotAuthorizedForSourceException", "InvalidArgument", "InvalidArgument", "InvalidArgument",
		"MalformedDetail", "MalformedDetail", "MalformedDetail", ""}
	out, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	if out.FailedEntryCount != 7 || len(out.Entries) != len(want) {
		t.Errorf("%d of %d failed, want 7 of 9", out.FailedEntryCount, len(out.Entries))
	}
	for i, e := range out.Entries {
		if code := aws.ToString(e.ErrorCode); code != want[i] || (e.EventId == nil) != (code != "") || (e.ErrorMessage == nil) != (code == "") {
			t.Errorf("entry %d: got %q, id %v, message %v, want %q", i, code, e.EventId, e.ErrorMessage, want[i])
		}
	}
	if n := len(w.messages("q")); n != 2 {
		t.Errorf("%d events were delivered, want the 2 that were taken", n)
	}

	var refused smithy.APIError
	for n, entries := range map[string][]types.PutEventsRequestEntry{"eleven": append(entries, entries[:2]...), "none": {}} {
		_, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: entries})
		if !errors.As(err, &refused) || refused.ErrorCode() != "ValidationException" {
			t.Errorf("%s: got %v, want a ValidationException", n, err)
		}
	}
}

func TestPutRuleRefusesAPatternThatEventBridgeRefuses(t *testing.T) {
	w := newWorld(t, nil)
	put := func(pattern string) error {
		_, err := w.events.PutRule(t.Context(), &eventbridge.PutRuleInput{Name: aws.String("mine"), EventPattern: &pattern})
		return err
	}
	for _, pattern := range []string{`{"source": [{"prefx": "t"}]}`, `{"source": "aws.ec2"}`, `{"source"`} {
		var invalid *types.InvalidEventPatternException
		if err := put(pattern); !errors.As(err, &invalid) {
			t.Errorf("%s: got %v", pattern, err)
		}
	}
	if err := put(wanted); err != nil {
		t.Error(err)
	}
}

func TestAWSSourcesAreTakenIfAllowed(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.AllowAWSSources = true })
	out, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		{Source: aws.String("aws.ec2"), DetailType: aws.String("Test"), Detail: aws.String(`{}`)}}})
	if err != nil || out.FailedEntryCount != 0 {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestABusMayHaveMoreRulesThanOnePageLists(t *testing.T) {
	w := newWorld(t, nil)
	q := w.queue("q")
	for i := range 51 {
		w.rule(fmt.Sprint("rule-", i), fmt.Sprintf(`{"detail": {"n": [%d]}}`, i), types.Target{Arn: &q})
	}
	for _, n := range []int{0, 50} {
		w.put(fmt.Sprintf(`{"n": %d}`, n))
		if got := len(w.messages("q")); got != 1 {
			t.Errorf("rule %d: %d messages", n, got)
		}
	}
}

func TestEverythingElseIsMotos(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"/moto-api/", "/moto-api/config?x=1"} {
		var answers [2]string
		for i, url := range []string{shared.moto, w.bridge.URL} {
			resp := must[*http.Response](t)(http.Get(url + path))
			answers[i] = fmt.Sprintf("%d %s\n%s", resp.StatusCode, resp.Header.Get("Content-Type"), must[[]byte](t)(io.ReadAll(resp.Body)))
			resp.Body.Close()
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: moto says\n%s\nthe bridge\n%s", path, answers[0], answers[1])
		}
	}
	w.closedQueue("q")
	if url := *w.queueURL("q"); !strings.HasPrefix(url, w.bridge.URL+"/") {
		t.Errorf("the queue's URL is %s, and not at the bridge", url)
	}
}

// warning is a Spot warning as EC2 sends it.
func (w *world) warning(id string) string {
	return `{"version": "0", "id": "` + id + `", "detail-type": "EC2 Spot Instance Interruption Warning", "source": "aws.ec2", "account": "` + testAccount + `",
		"time": "2026-02-03T04:05:06Z", "region": "` + w.region + `", "resources": [], "detail": {"instance-id": "i-0abc", "instance-action": "terminate"}}`
}

func TestDeliverIsForTheEventsOfAWSItself(t *testing.T) {
	w := newWorld(t, nil)
	q := w.queue("q")
	w.rule("spot", `{"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Interruption Warning"]}`, types.Target{Arn: &q})
	if err := w.bridge.Deliver(t.Context(), []byte(w.warning("warning-1"))); err != nil {
		t.Fatal(err)
	}
	if got := w.bridge.Deliveries(); len(got) != 1 || !got[0].Delivered || got[0].EventID != "warning-1" {
		t.Errorf("when Deliver returns, the journal has %+v", got)
	}
	messages := w.messages("q")
	if len(messages) != 1 || strings.Contains(*messages[0].Body, "\n") || !strings.HasPrefix(*messages[0].Body, `{"version":"0","id":"warning-1"`) {
		t.Errorf("got %+v", messages)
	}
}

func TestAnEventOfAnotherRegionIsForTheRulesThere(t *testing.T) {
	w := newWorld(t, nil)
	q := w.queue("q")
	w.rule("spot", `{"source": ["aws.ec2"]}`, types.Target{Arn: &q})
	elsewhere := strings.ReplaceAll(w.warning("warning-1"), w.region, "mx-central-1")
	if err := w.bridge.Deliver(t.Context(), []byte(elsewhere)); err != nil {
		t.Fatal(err)
	}
	if got := w.bridge.Deliveries(); len(got) != 0 {
		t.Errorf("a rule of %s was asked: %+v", w.region, got)
	}
}

func TestDeliverRefusesWhatIsNoEvent(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct{ old, with, says string }{
		{`{"version"`, `{"version`, "invalid character"},
		{`"id": "x"`, `"id": ""`, "no id"},
		{`"detail-type"`, `"detailType"`, "no detail-type"},
		{`"source": "aws.ec2", `, ``, "no source"},
		{`"resources": [], `, ``, "resources"},
		{`"detail": {`, `"details": {`, "detail"},
		{testAccount, "210987654321", "of account 210987654321"},
	} {
		body := strings.ReplaceAll(w.warning("x"), c.old, c.with)
		if err := w.bridge.Deliver(t.Context(), []byte(body)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s: got %v, want an error with %q", c.with, c.old, err, c.says)
		}
	}
}

func TestTickFiresARulesScheduleNow(t *testing.T) {
	w := newWorld(t, nil)
	q := w.queue("q")
	must[*eventbridge.PutRuleOutput](t)(w.events.PutRule(t.Context(), &eventbridge.PutRuleInput{
		Name: aws.String("hourly"), ScheduleExpression: aws.String("rate(1 hour)")}))
	w.targets("hourly", types.Target{Arn: &q}, types.Target{Arn: &q, Input: aws.String(`{"check": true}`)})
	w.rule("all", `{"source": [{"exists": true}]}`, types.Target{Arn: &q})

	if err := w.bridge.Tick(t.Context(), "hourly"); err != nil {
		t.Fatal(err)
	}
	messages := w.messages("q")
	if len(messages) != 2 || *messages[1].Body != `{"check":true}` {
		t.Fatalf("got %+v, want an event and the constant", messages)
	}
	got := decode[event](t, *messages[0].Body)
	if got.DetailType != "Scheduled Event" || got.Source != "aws.events" || string(got.Detail) != `{}` ||
		!reflect.DeepEqual(got.Resources, []string{w.arn("events", "rule/hourly")}) {
		t.Errorf("got %s", *messages[0].Body)
	}

	if id := w.put(`{}`); w.fate(id).Rule != w.arn("events", "rule/all") {
		t.Errorf("an event came to a rule that has only a schedule: %+v", w.bridge.Deliveries())
	}
	must[*eventbridge.DisableRuleOutput](t)(w.events.DisableRule(t.Context(), &eventbridge.DisableRuleInput{Name: aws.String("hourly")}))
	if err := w.bridge.Tick(t.Context(), "hourly"); err != nil {
		t.Fatal(err)
	}
	all := w.bridge.Deliveries()
	if last := all[len(all)-1]; last.Reason != "the rule is disabled" || last.Delivered {
		t.Errorf("disabled: got %+v", last)
	}
	for name, says := range map[string]string{"all": "no schedule", "nowhere": "ResourceNotFoundException"} {
		if err := w.bridge.Tick(t.Context(), name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want an error with %q", name, err, says)
		}
	}
}
