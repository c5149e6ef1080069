package spot_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

// TestNotificationSize checks that an event with many pods is cut to what EventBridge accepts, and no other.
func TestNotificationSize(t *testing.T) {
	for pods, whole := range map[int]bool{10: true, 300: true, 2000: false} {
		out := spot.Outcome{Result: spot.Drained, Plan: &spot.PlanResult{}, Event: spot.EventInfo{Kind: spot.SpotTerminate}}
		for i := range pods {
			name := fmt.Sprintf("pod-%d", i)
			out.Pods = append(out.Pods, spot.PodResult{Namespace: "default", Name: name, Status: spot.PodEvicted, Reason: "recreated elsewhere"})
			out.Plan.Pods = append(out.Plan.Pods, spot.PlannedPod{Namespace: "default", Name: name, Action: spot.PodEvict})
		}
		detail, err := out.Finished().Detail()
		var n spot.Notification
		if err == nil {
			err = json.Unmarshal(detail, &n)
		}
		if err != nil || len(detail) > 200_000 || n.PodCounts[spot.PodEvicted] != pods || n.Summary == "" {
			t.Fatalf("%d pods: got %d bytes, %v, %v", pods, len(detail), n.PodCounts, err)
		}
		if got := len(n.Outcome.Pods) == pods && len(n.Outcome.Plan.Pods) == pods; got != whole {
			t.Errorf("%d pods: got %d in the outcome", pods, len(n.Outcome.Pods))
		}
		if len(out.Pods) != pods || len(out.Plan.Pods) != pods {
			t.Error("the outcome itself was changed")
		}
	}
}

// TestNotificationLines checks that no line is longer than PagerDuty accepts, and that a long reason does not hide the
// instance.
func TestNotificationLines(t *testing.T) {
	long := strings.Repeat("why ", 500)
	n := spot.Outcome{Result: spot.Incomplete, Node: "node", Reason: long, Problems: []string{long, long},
		Event: spot.EventInfo{Instance: "i-0a1b2c3d4e5f60718"}}.Finished()
	special := spot.Outcome{Result: spot.ReplacementFailed, Reason: `the "launch" of C:\x failed <a&b>`}.Finished()
	if !strings.Contains(special.Summary, "the 'launch' of C:/x failed (a&b)") || strings.ContainsAny(special.Text, `"\<>`) {
		t.Errorf("got the summary %q and the text %q", special.Summary, special.Text)
	}
	if !strings.HasSuffix(n.Summary, "why… (i-0a1b2c3d4e5f60718)") {
		t.Errorf("got the summary %q", n.Summary)
	}
	for line := range strings.Lines(n.Text) {
		if size := len([]rune(line)); size > 1001 {
			t.Errorf("got a line of %d characters", size)
		}
	}
}
