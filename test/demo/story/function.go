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

// FunctionLog shows in a few words what the function logs. It is its log: whole lines, one write at a time.
type FunctionLog struct {
	Out *Screen

	mu      sync.Mutex
	refused map[string]int // how often a pod's eviction was, by pod

	// What one burst of evictions brings is gathered for a line or two.
	burst    *time.Timer
	begun    time.Time
	evicted  []string // pods
	refusals []func() // each shows one
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

// burstTime is how long evictions are gathered.
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
	case l.Action == "pod-terminated", l.Outcome != nil: // shown by other sources, and at the end
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
		f.Out.Live("function", "%s", strings.Join(slices.DeleteFunc([]string{l.Msg, pod, l.Reason, l.Error}, func(s string) bool { return s == "" }), ": "))
	}
}

// gather has what is shown next wait for what comes with it.
func (f *FunctionLog) gather() {
	if f.burst != nil {
		return
	}
	f.begun = time.Now()
	f.burst = time.AfterFunc(burstTime, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.flush()
	})
}

// flush shows the burst: the evicted pods, by workload, and the refusals.
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
		f.Out.liveAt(f.begun, "function", "evicted %s: %s", counted(len(f.evicted), "pod"), strings.Join(names, ", "))
	}
	for _, show := range f.refusals {
		show()
	}
	f.evicted, f.refusals = nil, nil
}

// refusal is one in the words of the budget, if it is a budget's.
func refusal(pod, said string) string {
	if _, after, ok := strings.Cut(said, "refused with "); ok {
		said = after
	}
	code, why, _ := strings.Cut(said, ": ")
	if _, budget, ok := strings.Cut(why, "The disruption budget "+workload(pod)); ok {
		why = "its budget" + strings.TrimSuffix(budget, ".")
	}
	return fmt.Sprintf("may not evict a pod of %s yet (%s): %s", workload(pod), code, why)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// workload is the workload of a pod's name.
func workload(pod string) string {
	for _, a := range Apps {
		if strings.HasPrefix(pod, a.Name+"-") {
			return a.Name
		}
	}
	return pod
}

// platform shows Lambda's own lines, as far as one wants to know.
func (f *FunctionLog) platform(line string) {
	f.flush()
	switch {
	case strings.HasPrefix(line, "START "):
		f.Out.Live("lambda", "invoked")
	case strings.HasPrefix(line, "REPORT "):
		var said []string
		for field := range strings.SplitSeq(strings.TrimSpace(line), "\t") {
			for _, wanted := range []string{"Duration: ", "Init Duration: ", "Max Memory Used: "} {
				if strings.HasPrefix(field, wanted) {
					said = append(said, strings.ToLower(strings.TrimSuffix(wanted, ": "))+" "+strings.TrimPrefix(field, wanted))
				}
			}
		}
		f.Out.Live("lambda", "ended: %s", strings.Join(said, ", "))
	case strings.HasPrefix(line, "END "), strings.TrimSpace(line) == "":
	default:
		f.Out.Live("lambda", "%s", strings.TrimSpace(line))
	}
}
