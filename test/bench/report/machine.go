package report

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Machine describes what the figures were measured on. Linux only, as the rest of it is.
func Machine() string {
	model := field("/proc/cpuinfo", "model name")
	memory := "memory unknown"
	var kB int
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d kB", &kB); err == nil {
		memory = fmt.Sprintf("%.0f GiB", float64(kB)/(1<<20))
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // shown as unknown
	return fmt.Sprintf("%s/%s, %d × %s, %s, Linux %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		cmp.Or(model, "unknown processor"), memory, cmp.Or(strings.TrimSpace(string(kernel)), "unknown"))
}

// field is the value of the first line "name : value" of a file.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Load is how many processes ran or wanted to, on average over the last minute.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	if err != nil || first == "" {
		return "unknown"
	}
	return first
}

// WatchOthers begins to watch what other programs use of the processors. The function that it returns says how much that
// was, in percent of all there is; this program's children, which have to have ended by then, are not others.
func WatchOthers() (used func() string) {
	began, all, ours := time.Now(), busy(), own()
	return func() string {
		now := busy()
		if all == 0 || now == 0 {
			return "an unknown part"
		}
		others := (now - all) - (own() - ours)
		return fmt.Sprintf("%.0f %%", 100*max(0, others.Seconds())/time.Since(began).Seconds()/float64(runtime.NumCPU()))
	}
}

// busy is how long the processors have not been idle, in sum; 0 if that is not known.
func busy() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system, idle, iowait, irq, softirq int64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq); err != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // of proc(5) on every architecture that Lambda has
	return time.Duration(user+nice+system+irq+softirq) * tick
}

// own is what this program and its children have used.
func own() (used time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return used
}
