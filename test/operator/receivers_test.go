package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/spot"
	fakeevents "github.com/castai/kops-spot/test/fakes/events"
	"github.com/castai/kops-spot/test/testenv"
)

// The receivers' URLs, all of which are secrets.
const (
	slackURL     = "https://hooks.slack.com/services/T00000000/B00000000/0123456789abcdefABCDEFGH"
	teamsURL     = "https://prod-12.westeurope.logic.azure.com:443/workflows/0a1b2c3d/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=0123456789-abcdef_ABCDEF"
	pagerDutyURL = "https://events.pagerduty.com/v2/enqueue"
	pagerDutyKey = "0123456789abcdef0123456789ABCDEF"
)

// internet receives what the bridge posts to API destinations.
var internet = testenv.Once(func(context.Context) (*fakeevents.Receiver, error) {
	return fakeevents.StartReceiver("hooks.slack.com", "prod-12.westeurope.logic.azure.com", "events.pagerduty.com")
}, func(r *fakeevents.Receiver) error { r.Close(); return nil })

// notifyURL returns the argument for a receiver, whose URL is added to the search for secrets in outputs.
func (w *world) notifyURL(url string) string {
	recordSecret(url)
	_, rest, _ := strings.Cut(url, "https://")
	recordSecret(rest)
	recordSecret(pagerDutyKey)
	file := filepath.Join(w.TempDir(), "url")
	try(os.WriteFile(file, []byte(url+"\n"), 0o600))
	return "NotifyUrl=file:" + file
}

// put publishes notifications as the function does, and returns what the receiver gets.
func (w *world) put(all ...spot.Notification) []fakeevents.Post {
	w.Helper()
	for _, n := range all {
		must(eventbridge.NewFromConfig(w.direct).PutEvents(w.Context(), &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
			Source: aws.String(spot.NotificationSource), DetailType: aws.String(string(n.Name)), Detail: aws.String(string(must(n.Detail())))}}}))
	}
	w.quiet()
	return internet().Posts()
}

// badOutcome has more of everything than fits into a message.
func badOutcome(id string) (o spot.Outcome) {
	o = spot.Outcome{Result: spot.Incomplete, Cluster: cluster, Node: "ip-172-20-32-31.ec2.internal",
		Event: spot.EventInfo{ID: id, Kind: spot.SpotTerminate, Instance: "i-0a1b2c3d4e5f60718"}, Reason: strings.Repeat(`long "reason" <&> `, 200)}
	for i := range 300 {
		o.Pods = append(o.Pods, spot.PodResult{Namespace: "default", Name: fmt.Sprintf("web-%d-%s", i, strings.Repeat("x", 200)), Status: spot.PodStillRunning})
	}
	for range 10 {
		o.Problems = append(o.Problems, strings.Repeat("a problem\twith\nlines ", 100))
	}
	return o
}

// startedAtSlack: handleEvent's warning was posted at the start, within 3.5 s. The node was drained, so its end was not.
func startedAtSlack(t *testing.T, out spot.Outcome, warned time.Time) {
	t.Helper()
	posts := internet().Posts()
	if len(posts) != 1 || posts[0].URL != slackURL {
		t.Fatalf("Slack got %+v, want one message", posts)
	}
	if text := slackText(t, posts[0]); !strings.Contains(text, out.Node+" of "+cluster+": ") {
		t.Errorf("Slack got %q", text)
	}
	if after := posts[0].At.Sub(warned).Seconds() - float64(*out.Timings.Started); after > 3.5 {
		t.Errorf("the start was posted %.1f s after the function had started", after)
	}
}

// slackText returns the text of an incoming webhook's message (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks):
// {"text": ...}, of at most 40,000 characters.
func slackText(t *testing.T, p fakeevents.Post) string {
	t.Helper()
	var message map[string]string
	if err := json.Unmarshal([]byte(p.Body), &message); err != nil || len(message) != 1 || message["text"] == "" || len(message["text"]) > 40_000 {
		t.Errorf("Slack got %.1000s: %v", p.Body, err)
	}
	return message["text"]
}

// teamsText returns the text of a message to a workflow's webhook: an Adaptive Card as an attachment, of at most 28 KB
// (https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using).
func teamsText(t *testing.T, p fakeevents.Post) string {
	t.Helper()
	var message struct {
		Type        string
		Attachments []struct {
			ContentType string
			Content     struct {
				Type, Version string
				Body          []struct {
					Type, Text string
					Wrap       bool
				}
			}
		}
	}
	err := json.Unmarshal([]byte(p.Body), &message)
	if err != nil || len(p.Body) > 28_000 || message.Type != "message" || len(message.Attachments) != 1 {
		t.Fatalf("Teams got %.1000s: %v", p.Body, err)
	}
	a := message.Attachments[0]
	if a.ContentType != "application/vnd.microsoft.card.adaptive" || a.Content.Type != "AdaptiveCard" || a.Content.Version != "1.4" ||
		len(a.Content.Body) != 1 || a.Content.Body[0].Type != "TextBlock" || !a.Content.Body[0].Wrap {
		t.Fatalf("Teams got %.1000s", p.Body)
	}
	return a.Content.Body[0].Text
}

// pagerDutyEvent is an event of the Events API v2 (https://developer.pagerduty.com/docs/send-alert-event).
type pagerDutyEvent struct {
	RoutingKey  string `json:"routing_key"`
	EventAction string `json:"event_action"`
	DedupKey    string `json:"dedup_key"`
	Payload     struct {
		Summary, Source, Severity string
		CustomDetails             spot.Notification `json:"custom_details"`
	}
}

func readPagerDuty(t *testing.T, p fakeevents.Post) (e pagerDutyEvent) {
	t.Helper()
	err := json.Unmarshal([]byte(p.Body), &e)
	if err != nil || len(p.Body) > 512_000 || e.RoutingKey != pagerDutyKey || e.EventAction != "trigger" || e.DedupKey == "" || len(e.DedupKey) > 255 ||
		e.Payload.Summary == "" || len(e.Payload.Summary) > 1024 || e.Payload.Source != cluster ||
		!slices.Contains([]string{"critical", "error", "warning", "info"}, e.Payload.Severity) || e.Payload.CustomDetails.Cluster != cluster {
		t.Errorf("PagerDuty got %.1000s: %v", p.Body, err)
	}
	return e
}

// missed: nobody has handled a warning whose deadline is over, so the function publishes only the end.
func missed(t *testing.T, w *world) {
	w = w.in(t)
	internet().Posts() // of rehearsals
	node := w.newNode(cluster)
	must(eventbridge.NewFromConfig(w.direct).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
		Source: aws.String("aws.ec2"), DetailType: aws.String("EC2 Spot Instance Interruption Warning"), Time: aws.Time(time.Now().Add(-130 * time.Second)),
		Resources: []string{"arn:aws:ec2:" + region + ":" + account + ":instance/" + node}, Detail: aws.String(`{"instance-id": "` + node + `", "instance-action": "terminate"}`)}}}))
	w.quiet()
	if posts := internet().Posts(); len(posts) != 1 || !strings.Contains(slackText(t, posts[0]), node+" of "+cluster+": missed") {
		t.Errorf("Slack got %+v, want that the warning was missed", posts)
	}
}

// receivers changes the receiver of an installed stack, from Slack to Teams and PagerDuty.
func receivers(t *testing.T, w *world) {
	w = w.in(t)
	bad := badOutcome("e-1")

	t.Run("missed", func(t *testing.T) { missed(t, w) })
	posts := append(w.put(bad.Started()), w.put(bad.Finished())...)
	if len(posts) != 2 || slackText(t, posts[0]) != bad.Started().Text || slackText(t, posts[1]) != bad.Finished().Text {
		t.Errorf("Slack got %+v", posts)
	}
	if got := posts[0].Header.Get("X-Kops-Spot"); got != cluster {
		t.Errorf("the fixed header is %q", got)
	}

	// The plan shows that the URL changes, and nothing shows the URL.
	_, stderr := w.mustRun(installed("--yes", "--set", w.notifyURL("teams+"+teamsURL))...)
	if !strings.Contains(stderr, "- NotifyUrl=****") || !strings.Contains(stderr, "+ NotifyUrl=(new)") {
		t.Errorf("the plan does not show the change:\n%s", stderr)
	}
	posts = append(w.put(bad.Started()), w.put(bad.Finished())...)
	if len(posts) != 2 || posts[0].URL != strings.Replace(teamsURL, ":443", "", 1) && posts[0].URL != teamsURL ||
		teamsText(t, posts[0]) != bad.Started().Text || teamsText(t, posts[1]) != bad.Finished().Text {
		t.Errorf("Teams got %+v", posts)
	}

	w.mustRun(installed("--yes", "--set", w.notifyURL("pagerduty+https://"+pagerDutyKey+"@"+strings.TrimPrefix(pagerDutyURL, "https://")))...)
	posts = append(w.put(bad.Started()), w.put(bad.Finished())...)
	if len(posts) != 2 || posts[0].URL != pagerDutyURL {
		t.Fatalf("PagerDuty got %+v", posts)
	}
	started, finished := readPagerDuty(t, posts[0]), readPagerDuty(t, posts[1])
	if started.DedupKey != "started/e-1/"+bad.Event.Instance || started.Payload.Severity != "info" || finished.DedupKey != "finished/e-1/"+bad.Event.Instance || finished.Payload.Severity != "error" ||
		finished.Payload.Summary != bad.Finished().Summary || finished.Payload.CustomDetails.Outcome.Result != spot.Incomplete {
		t.Errorf("PagerDuty got %+v and %+v", started, finished)
	}

	w.failingReceivers()

	w.mustRun(installed("--yes", "--set", w.notifyURL("json+"+slackURL))...)
	var detail spot.Notification
	if posts = w.put(bad.Finished()); len(posts) != 1 || json.Unmarshal([]byte(posts[0].Body), &detail) != nil || detail.Summary != bad.Finished().Summary {
		t.Errorf("the receiver of JSON got %+v", posts)
	}

	_, stderr, err := w.command("grant", "--yes", "--set", w.notifyURL("json+"+slackURL))
	if err == nil || !strings.Contains(stderr, "--set NotifyUrl: the output would show this secret") {
		t.Errorf("grant: %v\n%s", err, stderr)
	}
	_, stderr, err = w.command(installed("--yes", "--set", "NotifyUrl=json+"+slackURL)...)
	if err == nil || !strings.Contains(stderr, "--set NotifyUrl: this is a secret: write it to a file, and use NotifyUrl=file:PATH") {
		t.Errorf("a secret on the command line: %v\n%s", err, stderr)
	}
}

// failingReceivers: what a receiver does not accept is in the queue for undelivered events.
func (w *world) failingReceivers() {
	w.Helper()
	internet().Answer(func(rw http.ResponseWriter, r *http.Request) {
		body := r.Context().Value(fakeevents.Body).(string)
		switch {
		case strings.Contains(body, "slow"):
			<-r.Context().Done()
		case strings.Contains(body, "failing"):
			rw.WriteHeader(http.StatusInternalServerError)
		case strings.Contains(body, "gone"):
			panic(http.ErrAbortHandler)
		case strings.Contains(body, "refusing"):
			rw.WriteHeader(http.StatusBadRequest)
		}
	})
	defer internet().Answer(nil)
	kinds, attempts := []string{"failing", "gone", "refusing", "slow"}, map[string]int{}
	var all []spot.Notification
	for _, kind := range kinds {
		o := badOutcome(kind)
		o.Pods, o.Problems = nil, nil
		all = append(all, o.Finished())
	}
	for _, p := range w.put(all...) {
		attempts[strings.Split(readPagerDuty(w.T, p).DedupKey, "/")[1]]++
	}
	if attempts["failing"] < 2 || attempts["gone"] < 2 || attempts["slow"] < 1 || attempts["refusing"] != 1 {
		w.Errorf("there were %v attempts", attempts)
	}
	client, queue := sqs.NewFromConfig(w.direct), aws.String("cast_"+strings.TrimPrefix(names.FunctionName(cluster), "cast-")+"-undelivered")
	at := must(client.GetQueueUrl(w.Context(), &sqs.GetQueueUrlInput{QueueName: queue})).QueueUrl
	var held []string
	for _, m := range must(client.ReceiveMessage(w.Context(), &sqs.ReceiveMessageInput{QueueUrl: at, MaxNumberOfMessages: 10})).Messages {
		var event struct{ Detail spot.Notification }
		try(json.Unmarshal([]byte(*m.Body), &event))
		held = append(held, event.Detail.EventID)
		must(client.DeleteMessage(w.Context(), &sqs.DeleteMessageInput{QueueUrl: at, ReceiptHandle: m.ReceiptHandle}))
	}
	slices.Sort(held)
	if !slices.Equal(held, kinds) {
		w.Errorf("the queue for undelivered events has %q, want %q", held, kinds)
	}
}
