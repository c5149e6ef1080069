package story

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// FunctionLog summarizes the log of the function on a Screen. Each Write must consist of whole lines.
type FunctionLog struct {
	Out *Screen

	mu      sync.Mutex
	refused map[string]int // refused evictions by pod

	// The evictions of one burst are printed together.
	burst        *time.Timer
	burstStarted time.Time
	evicted      []string // pods
	refusals     []func() // each prints one
}

// logLine is one line of the function's log. Action identifies the step.
type logLine struct {
	Action  string `json:"action"`
	Msg     string `json:"msg"`
	Node    string `json:"node"`
	Group   string `json:"group"`
	Pod     string `json:"pod"`
	Refusal string `json:"refusal"`
	Reason  string `json:"reason"`
	Error   string `json:"error"`

	Outcome json.RawMessage `json:"outcome"`
}

func (f *FunctionLog) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for line := range bytes.Lines(p) {
		var l logLine
		if err := json.Unmarshal(line, &l); err != nil {
			f.platform(string(line))
			continue
		}
		f.show(l)
	}
	return len(p), nil
}

// burstTime is how long evictions are collected before they are printed.
const burstTime = 200 * time.Millisecond

func (f *FunctionLog) show(l logLine) {
	_, pod, _ := strings.Cut(l.Pod, "/")
	switch {
	case l.Action == "evict" && f.refused[pod] == 0:
		f.gather()
		f.evicted = append(f.evicted, pod)
		return
	case l.Action == "refused":
		if f.refused == nil {
			f.refused = map[string]int{}
		}
		if f.refused[pod]++; f.refused[pod] == 1 {
			f.gather()
			now := time.Now()
			f.refusals = append(f.refusals, func() { f.Out.liveAt(now, "function", "%s", refusal(pod, l.Refusal)) })
		}
		return
	case l.Action == "pod-terminated", l.Outcome != nil: // printed by podWatch and at the end
		return
	case l.Msg == "" && l.Action == "": // metrics
		return
	}
	f.flush()
	switch l.Action {
	case "locate":
		f.Out.Live("function", "found node %s", Short(l.Node))
	case "cordon":
		f.Out.Live("function", "cordoned it: no new pods")
	case "evict":
		f.Out.Live("function", "evicted %s after %s", workload(pod), counted(f.refused[pod], "refusal"))
	case "force-delete":
		f.Out.Live("function", "force-deleted %s after %s", workload(pod), counted(f.refused[pod], "refusal"))
	case "detach":
		f.Out.Live("function", "detached the instance: %s launches another", strings.TrimSuffix(l.Group, "."+Cluster))
	default:
		parts := slices.DeleteFunc([]string{l.Msg, pod, l.Reason, l.Error}, func(s string) bool { return s == "" })
		f.Out.Live("function", "%s", strings.Join(parts, ": "))
	}
}

// gather starts a burst unless one is in progress.
func (f *FunctionLog) gather() {
	if f.burst != nil {
		return
	}
	f.burstStarted = time.Now()
	f.burst = time.AfterFunc(burstTime, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.flush()
	})
}

// flush prints the evicted pods of the burst, by workload, and the refusals.
func (f *FunctionLog) flush() {
	if f.burst == nil {
		return
	}
	f.burst.Stop()
	f.burst = nil
	if len(f.evicted) > 0 {
		count := map[string]int{}
		for _, pod := range f.evicted {
			count[workload(pod)]++
		}
		var names []string
		for name, n := range count {
			if n > 1 {
				name += fmt.Sprintf(" ×%d", n)
			}
			names = append(names, name)
		}
		slices.Sort(names)
		f.Out.liveAt(f.burstStarted, "function", "evicted %s: %s", counted(len(f.evicted), "pod"), strings.Join(names, ", "))
	}
	for _, show := range f.refusals {
		show()
	}
	f.evicted, f.refusals = nil, nil
}

// refusal shortens the API server's message. For a PodDisruptionBudget, it keeps only the budget's reason.
func refusal(pod, message string) string {
	if _, after, ok := strings.Cut(message, "refused with "); ok {
		message = after
	}
	code, reason, _ := strings.Cut(message, ": ")
	if _, budget, ok := strings.Cut(reason, "The disruption budget "+workload(pod)); ok {
		reason = "its budget" + strings.TrimSuffix(budget, ".")
	}
	return fmt.Sprintf("eviction of a %s pod refused, will retry (%s): %s", workload(pod), code, reason)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// workload returns the name of the pod's workload.
func workload(pod string) string {
	for _, a := range Apps {
		if strings.HasPrefix(pod, a.Name+"-") {
			return a.Name
		}
	}
	return pod
}

// platform prints the interesting part of Lambda's own log lines.
func (f *FunctionLog) platform(line string) {
	f.flush()
	switch {
	case strings.HasPrefix(line, "START "):
		f.Out.Live("lambda", "invoked")
	case strings.HasPrefix(line, "REPORT "):
		var report []string
		for field := range strings.SplitSeq(strings.TrimSpace(line), "\t") {
			for _, wanted := range []string{"Duration: ", "Init Duration: ", "Max Memory Used: "} {
				if strings.HasPrefix(field, wanted) {
					name := strings.ToLower(strings.TrimSuffix(wanted, ": "))
					report = append(report, name+" "+strings.TrimPrefix(field, wanted))
				}
			}
		}
		f.Out.Live("lambda", "finished: %s", strings.Join(report, ", "))
	case strings.HasPrefix(line, "END "), strings.TrimSpace(line) == "":
	default:
		f.Out.Live("lambda", "%s", strings.TrimSpace(line))
	}
}
