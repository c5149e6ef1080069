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
	told     []string // pods
	refusals []func() // each shows one
}

// logLine is what stands in a line of the function's log.
type logLine struct {
	Msg     string `json:"msg"`
	Node    string `json:"node"`
	Group   string `json:"group"`
	Pod     string `json:"pod"`
	Past    bool   `json:"past_its_budget"`
	Times   int    `json:"times"`
	Refusal string `json:"refusal"`
	Reason  string `json:"reason"`
	Error   string `json:"error"`
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
	case l.Msg == "told a pod to end" && !l.Past && f.refused[pod] == 0:
		f.gather()
		f.told = append(f.told, pod)
		return
	case l.Msg == "an eviction was refused":
		if f.refused == nil {
			f.refused = map[string]int{}
		}
		if f.refused[pod]++; f.refused[pod] == 1 {
			f.gather()
			now := time.Now()
			f.refusals = append(f.refusals, func() { f.Out.liveAt(now, "function", "%s", refusal(pod, l.Refusal)) })
		}
		return
	case l.Msg == "a pod has gone", l.Msg == "outcome": // seen with other eyes, and shown as a whole
		return
	case l.Msg == "": // metrics
		return
	}
	f.flush()
	switch l.Msg {
	case "found the node":
		f.Out.Live("function", "found the node %s", Short(l.Node))
	case "cordoned the node":
		f.Out.Live("function", "cordoned it: no new pods")
	case "told a pod to end":
		past := ""
		if l.Past {
			past = ", past its budget"
		}
		f.Out.Live("function", "told %s to end%s, after %s", workload(pod), past, counted(f.refused[pod], "refusal"))
	case "asked for a replacement":
		f.Out.Live("function", "detached the instance: %s has to launch another", strings.TrimSuffix(l.Group, "."+Cluster))
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

// flush shows the burst: the pods that were told to end, by workload, and the refusals.
func (f *FunctionLog) flush() {
	if f.burst == nil {
		return
	}
	f.burst.Stop()
	f.burst = nil
	if len(f.told) > 0 {
		count := map[string]int{}
		for _, pod := range f.told {
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
		f.Out.liveAt(f.begun, "function", "told %s to end: %s", counted(len(f.told), "pod"), strings.Join(names, ", "))
	}
	for _, show := range f.refusals {
		show()
	}
	f.told, f.refusals = nil, nil
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
