package bridge

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// guide is the event of the User Guide's page on input transformation, with a list.
const guide = `{"version":"0","id":"7bf73129-1428-4cd3-a780-95db273d1602","detail-type":"EC2 Instance State-change Notification","source":"aws.ec2",` +
	`"account":"123456789012","time":"2015-11-11T21:29:54Z","region":"us-east-1","resources":["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],` +
	`"detail":{"instance-id":"i-0123456789","state":"RUNNING","n":1.0,"said":"\"so\"","none":null,"list":[{"a":1},["b"]],"a.b":true}}`

func TestInput(t *testing.T) {
	path := func(p string) types.Target { return types.Target{InputPath: &p} }
	paths := map[string]string{"timestamp": "$.time", "instance": "$.detail.instance-id", "state": "$.detail.state", "n": "$.detail.n",
		"detail": "$.detail.list[0]", "gone": "$.detail.gone", "said": "$.detail.said", "none": "$.detail.none"}
	template := func(text string) types.Target {
		return types.Target{InputTransformer: &types.InputTransformer{InputPathsMap: paths, InputTemplate: &text}}
	}
	for _, c := range []struct {
		name   string
		target types.Target
		want   string // or, after "error: ", what the error says
	}{
		{"nothing asked for", types.Target{}, guide},
		{"a constant", types.Target{Input: aws.String(`{ "check": [true] }`)}, `{"check":[true]}`},
		{"a constant that is no JSON", types.Target{Input: aws.String(`check`)}, "error: no JSON"},

		{"path: all", path("$"), guide},
		{"path: an object", path("$.detail.list[0]"), `{"a":1}`},
		{"path: a string", path("$.detail.instance-id"), `"i-0123456789"`},
		{"path: a number as it is written", path("$.detail.n"), `1.0`},
		{"path: in brackets", path(`$['detail']["a.b"]`), `true`},
		{"path: elements", path("$.detail.list[1][0]"), `"b"`},
		{"path: null", path("$.detail.none"), `null`},
		{"path: not there", path("$.detail.gone.further"), "error: the event has no $.detail.gone.further"},
		{"path: beyond the list", path("$.resources[1]"), "error: the event has no $.resources[1]"},
		{"path: through a string", path("$.source.x"), "error: the event has no"},
		{"path: no root", path("detail"), `error: does not begin with $`},
		{"path: a wildcard", path("$.resources[*]"), `error: cannot read it from "[*]" on`},

		{"template: a string", template(`"instance <instance> is in <state>"`), `"instance i-0123456789 is in RUNNING"`},
		{"template: escaped quotes", template(`"instance \"<instance>\" is in <state>"`), `"instance \"i-0123456789\" is in RUNNING"`},
		{"template: JSON", template(`{ "instance" : <instance>, "state": [ 9, <state>, true ], "n": <n>, "d": <detail> }`),
			`{"instance":"i-0123456789","state":[9,"RUNNING",true],"n":1.0,"d":{"a":1}}`},
		{"template: in quotes", template(`{"state": "<state>", "text": "<n> of \"<instance>\"", "none": "<none>"}`),
			`{"state":"RUNNING","text":"1.0 of \"i-0123456789\"","none":"null"}`},
		{"template: not there, in quotes", template(`"gone: <gone>."`), `"gone: ."`},
		{"template: not there", template(`{"gone": <gone>}`), "error: no JSON"},
		{"template: quotes in a value are not escaped", template(`"he said <said>"`), "error: no JSON"},
		{"template: quotes in a value, outside", template(`{"said": <said>}`), `{"said":"\"so\""}`},
		{"template: no variable", template(`"a <b> <state"`), `"a <b> <state"`},
		{"template: predefined", template(`{"arn": <aws.events.rule-arn>, "name": "<aws.events.rule-name>!", "at": <aws.events.event.ingestion-time>}`),
			`{"arn":"arn:rule","name":"mine!","at":"2026-02-03T04:05:06Z"}`},
		{"template: the event", template(`<aws.events.event.json>`), guide},
		{"template: the event without its detail", template(`<aws.events.event>`), `{"account":"123456789012","detail-type":"EC2 Instance State-change Notification",` +
			`"id":"7bf73129-1428-4cd3-a780-95db273d1602","region":"us-east-1","resources":["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],` +
			`"source":"aws.ec2","time":"2015-11-11T21:29:54Z","version":"0"}`},
		{"template: none", types.Target{InputTransformer: &types.InputTransformer{}}, "error: no template"},
		{"template: a bad path", types.Target{InputTransformer: &types.InputTransformer{InputPathsMap: map[string]string{"x": "detail"}, InputTemplate: aws.String(`"<x>"`)}},
			"error: variable x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := arrival{body: []byte(guide), received: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
			got, err := input(c.target, rule{name: "mine", arn: "arn:rule"}, a)
			if says, fails := strings.CutPrefix(c.want, "error: "); fails {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("got %s, %v, want an error with %q", got, err, says)
				}
				return
			}
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}
