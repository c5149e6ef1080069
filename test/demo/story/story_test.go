package story

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestFunctionLog(t *testing.T) {
	var b strings.Builder
	out := NewScreen(&b)
	out.Begin(time.Now())
	log := &FunctionLog{Out: out}
	line := func(text string) { fmt.Fprintln(log, text) }
	refusal := `"refusal":"refused with 429: Cannot evict pod as it would violate the pod's disruption budget. ` +
		`The disruption budget payments needs 3 healthy pods and has 3 currently."`

	line(`START RequestId: 1 Version: $LATEST`)
	line(`{"action":"locate","node":"ip-10-0-0-1.ec2.internal"}`)
	line(`{"action":"evict","pod":"shop/web-5d9c-a"}`)
	line(`{"action":"refused","pod":"shop/payments-5d9c-b",` + refusal + `}`)
	line(`{"action":"evict","pod":"shop/web-5d9c-c"}`)
	line(`{"action":"pod-terminated","pod":"shop/web-5d9c-c"}`)
	line(`{"action":"refused","pod":"shop/payments-5d9c-b",` + refusal + `}`)
	line(`{"action":"force-delete","pod":"shop/payments-5d9c-b"}`)
	line(`{"_aws":{"Timestamp":1}}`)
	line(`{"msg":"pod watch failed","error":"EOF"}`)
	line("REPORT RequestId: 1\tDuration: 7.5 ms\tBilled Duration: 8 ms\tMemory Size: 256 MB\tMax Memory Used: 22 MB\t")
	line(`{"action":"evict","pod":"shop/api-5d9c-a"}`)
	for shown := false; !shown; { // a burst is flushed by its timer
		log.mu.Lock()
		shown = log.burst == nil
		log.mu.Unlock()
		time.Sleep(burstTime / 10)
	}

	got := regexp.MustCompile(`(?m)^ +\+\d+\.\d\d s  `).ReplaceAllString(b.String(), "")
	want := `lambda    invoked
function  found node ip-10-0-0-1
function  evicted 2 pods: web ×2
function  eviction of a payments pod refused, will retry (429): its budget needs 3 healthy pods and has 3 currently
function  force-deleted payments after 2 refusals
function  pod watch failed: EOF
lambda    finished: duration 7.5 ms, max memory used 22 MB
function  evicted 1 pod: api
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWrap(t *testing.T) {
	got := strings.Join(Wrap([]byte(`{"a":"1","bb":"22","ccc":["333"],"d":{"e":"f"}}`), 20), "\n")
	want := "{\"a\":\"1\",\"bb\":\"22\",\n \"ccc\":[\"333\"],\n \"d\":{\"e\":\"f\"}}"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
