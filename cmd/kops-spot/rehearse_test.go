package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/rehearse"
	"github.com/castai/kops-spot/internal/spot"
)

// TestRehearsalFails unless the node was drained, would have been, or is left by policy.
func TestRehearsalFails(t *testing.T) {
	good := map[spot.Result]bool{spot.Planned: true, spot.Drained: true, spot.Cordoned: true, spot.Skipped: true}
	for _, result := range []spot.Result{spot.Ignored, spot.OtherCluster, spot.Expired, spot.Planned, spot.NodeNotFound, spot.Drained, spot.Incomplete,
		spot.Cordoned, spot.Skipped, spot.CleanedUp, spot.Recovered, spot.ReplacementFailed} {
		for _, form := range []string{asText, asJSON} {
			var shown strings.Builder
			c := &console{stdout: &shown, stderr: io.Discard, output: form}
			err := c.printRehearsal(spot.Outcome{Result: result, Node: "n", Reason: "because"})
			if good[result] != (err == nil) || err != nil && err.Error() != fmt.Sprintf("the rehearsal ended with result %s: because", result) {
				t.Errorf("%s: %v", result, err)
			}
			var out spot.Outcome
			if isJSON := json.Unmarshal([]byte(shown.String()), &out) == nil; isJSON != (form == asJSON) || isJSON && out.Result != result {
				t.Errorf("%s as %s: %s", result, form, shown.String())
			}
		}
	}
}

// TestChecklist: only a missing outcome gets the checklist. Other errors say themselves what to do.
func TestChecklist(t *testing.T) {
	missing := withChecklist(fmt.Errorf("%w in the log group /l", rehearse.ErrNoOutcome), "/l")
	for _, want := range []string{"no outcome of the rehearsal was found in the log group /l", "enabled and matches the source kops-spot.rehearsal", "allows EventBridge to invoke it", "aws logs tail /l --since 1h"} {
		if !strings.Contains(missing.Error(), want) {
			t.Errorf("%q is not in: %v", want, missing)
		}
	}
	other := errors.New("another")
	if err := withChecklist(other, "x"); err != other {
		t.Errorf("got %v", err)
	}
	if err := withChecklist(nil, "x"); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestLogGroup(t *testing.T) {
	for want, o := range map[string]rehearseOptions{
		"/aws/lambda/cast-kops-prod-example-com-": {},
		"/aws/lambda/handler":                     {function: "handler"},
		"/mine":                                   {function: "handler", logGroup: "/mine"},
	} {
		if got := o.group("prod.example.com"); got != want && !(strings.HasSuffix(want, "-") && strings.HasPrefix(got, want)) {
			t.Errorf("%+v: got %q, want %q", o, got, want)
		}
	}
}
