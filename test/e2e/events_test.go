package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// samples are the events of the decoder's tests: AWS's own, and those that people send.
var samples = filepath.Join("..", "..", "internal", "eventbridge", "testdata")

// Names in the samples.
const (
	sampleGroup = "my-asg"
	sampleHook  = "my-lifecycle-hook"
	sampleToken = "87654321-4321-4321-4321-210987654321"
)

var (
	sampleInstance = regexp.MustCompile(`i-[0-9a-f]{17}`)
	sampleTime     = regexp.MustCompile(`"(time|startTime|endTime)": "([^"]+)"`)
	sampleID       = regexp.MustCompile(`"id": "[^"]+"`)
)

func sampleNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(samples, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no samples: %v", err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return names
}

func readSample(t *testing.T, name string) []byte {
	t.Helper()
	event, err := os.ReadFile(filepath.Join(samples, name+".json"))
	must(t, err)
	return event
}

// instancesIn returns the instance IDs in a sample without duplicates, in order.
func instancesIn(event []byte) (ids []string) {
	for _, id := range sampleInstance.FindAll(event, -1) {
		if !slices.Contains(ids, string(id)) {
			ids = append(ids, string(id))
		}
	}
	return ids
}

// sample returns a sample event of the given age with some names replaced. All times move with it. A second region
// stays different.
func (r *fixture) sample(name string, age time.Duration, names map[string]string) []byte {
	r.Helper()
	event := readSample(r.T, name)
	replace := []string{"us-east-2", region}
	for from, to := range names {
		replace = append(replace, from, to)
	}
	event = []byte(strings.NewReplacer(replace...).Replace(string(event)))
	event = sampleID.ReplaceAll(event, []byte(`"id": "`+r.namespace+"-"+name+`"`))
	var envelope struct{ Time time.Time }
	must(r, json.Unmarshal(event, &envelope))
	move := time.Now().Add(-age).Truncate(time.Second).Sub(envelope.Time.Truncate(time.Second))
	return sampleTime.ReplaceAllFunc(event, func(field []byte) []byte {
		part := sampleTime.FindSubmatch(field)
		for _, layout := range []string{time.RFC3339Nano, "Mon, 2 Jan 2006 15:04:05 GMT"} {
			if at, err := time.Parse(layout, string(part[2])); err == nil {
				return []byte(`"` + string(part[1]) + `": "` + at.UTC().Add(move).Format(layout) + `"`)
			}
		}
		r.Fatalf("%s: no time in %s", name, field)
		return nil
	})
}

// handled are the events that TestEventActions and TestLifecycleEvents cover.
var handled = []string{"spot-interruption-terminate", "spot-interruption-doc-arn", "spot-interruption-stop",
	"spot-interruption-hibernate"}

// byDefault has the expected result of each other event for a healthy node with default settings, and the reads that
// AWS and the API server get.
var byDefault = map[string]struct {
	result   spot.Result
	aws, api string
}{
	"asg-terminate-lifecycle":            {spot.Skipped, "", ""},
	"asg-terminate-lifecycle-short":      {spot.Skipped, "", ""},
	"asg-to-warm-pool":                   {spot.Skipped, "", ""},
	"asg-from-warm-pool":                 {spot.Skipped, "", ""},
	"rebalance-recommendation":           {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-scheduled-change":            {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-scheduled-change-arn-entity": {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-organization":                {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-page-1-of-2":                 {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-page-2-of-2":                 {spot.Skipped, "DescribeInstances", "get nodes"},
	"health-backup":                      {spot.Ignored, "", ""},
	"health-dedicated-host":              {spot.Ignored, "", ""},
	"rehearsal-spot-terminate":           {spot.Planned, "DescribeInstances", "get nodes, list pods, get nodes"},
	"rehearsal-rebalance":                {spot.Skipped, "DescribeInstances", "get nodes"},
	"spot-interruption-replayed":         {spot.Expired, "", ""},
	"launch-unsuccessful":                {spot.Ignored, "DescribeAutoScalingGroups", ""}, // the group is complete
	"state-change-pending":               {spot.Ignored, "", ""},
	"state-change-running":               {spot.Ignored, "DescribeInstances", "get nodes"},
	"state-change-stopping":              {spot.Ignored, "", ""},
	"state-change-shutting-down":         {spot.Ignored, "", ""},
	"state-change-stopped":               {spot.Ignored, "DescribeInstances", "get nodes"}, // EC2 reports that it is running
	"state-change-terminated":            {spot.Ignored, "DescribeInstances", "get nodes"},
}

func TestEverySampleIsCovered(t *testing.T) {
	for _, name := range sampleNames(t) {
		if _, left := byDefault[name]; !left && !slices.Contains(handled, name) && !slices.Contains(selfChecks, name) {
			t.Errorf("no expectation for the sample %s", name)
		}
	}
}

// TestEventsWithoutAction: with default settings, these events change nothing, and the function reads no more than
// necessary.
func TestEventsWithoutAction(t *testing.T) {
	r := newFixture(t)
	ours := r.targets(1)[0]
	other := r.aws.AddInstance(spottest.Instance{Tags: map[string]string{spot.TagCluster: "other.example.com"}})
	r.pin(app{name: "web"}, ours.id)
	r.waitReady("web", 1)
	s := r.service()
	asked := map[string]int{}
	for name, want := range byDefault {
		names := map[string]string{sampleGroup: ours.group}
		for n, id := range instancesIn(readSample(t, name)) {
			if names[id] = ours.id; n > 0 {
				names[id] = other.ID
			}
		}
		before := len(r.aws.Calls())
		out := r.outcome(r.invoke(s, r.sample(name, time.Second, names)), want.result)
		if asks, changes := operations(r.aws.Calls()[before:]); asks != want.aws || changes != "" {
			t.Errorf("%s: AWS got the reads %q, want %q, and the writes %q", name, asks, want.aws, changes)
		}
		if out.Reason == "" && want.result != spot.Planned || strings.Contains(want.api, "get nodes") &&
			out.Node != ours.id {
			t.Errorf("%s: the outcome lacks the reason or the node: %+v", name, out)
		}
		if want.result == spot.Planned &&
			(out.Plan.Replace != spot.ReplaceNone || len(out.Plan.Pods) != 1 || out.Plan.Pods[0].ForceAt != nil) {
			t.Errorf("%s is a rehearsal, and the plan is %+v", name, out.Plan)
		}
		for _, request := range strings.Split(want.api, ", ") {
			asked[request]++
		}
	}
	r.auditSettles()
	delete(asked, "")
	seen := map[string]int{}
	for _, q := range r.requests(ours.id) {
		seen[q.Verb+" "+q.Resource]++
	}
	if !maps.Equal(seen, asked) {
		t.Errorf("the API server got %v, want %v", seen, asked)
	}
	r.nothingChanged(ours.id)
}

// enableAllEvents sets the function to act on every event that it supports.
func (r *fixture) enableAllEvents() {
	for name, value := range map[string]string{"REBALANCE": "drain", "SCHEDULED_CHANGE": "drain", "HOOKS": sampleHook,
		"REHEARSALS": "act"} {
		r.env["KOPS_SPOT_"+name] = value
	}
}

// TestEventsOfOtherClusters: EventBridge sends every event of the region to every function. The function must not act
// on another cluster's instance.
func TestEventsOfOtherClusters(t *testing.T) {
	r := newFixture(t)
	other := r.instance()
	if err := r.aws.CreateTags(t.Context(), []string{other.ID},
		map[string]string{spot.TagCluster: "other.example.com"}); err != nil {
		t.Fatal(err)
	}
	r.enableAllEvents()
	s := r.service()
	for _, name := range sampleNames(t) {
		if slices.Contains(selfChecks, name) {
			continue
		}
		want := spot.OtherCluster
		if left := byDefault[name]; !strings.Contains(left.aws, "DescribeInstances") && !strings.HasPrefix(name, "asg-") &&
			!slices.Contains(handled, name) {
			want = left.result // this event needs no lookup of the instance
		}
		names := map[string]string{sampleGroup: r.group}
		for _, id := range instancesIn(readSample(t, name)) {
			names[id] = other.ID
		}
		before := len(r.aws.Calls())
		r.outcome(r.invoke(s, r.sample(name, time.Second, names)), want)
		if _, changes := operations(r.aws.Calls()[before:]); changes != "" {
			t.Errorf("%s: AWS got the writes %q", name, changes)
		}
	}
	r.auditSettles()
	for _, q := range r.requests(other.ID) {
		if q.Verb != "get" {
			t.Errorf("the API server got %s %s", q.Verb, q.URI)
		}
	}
}

// TestExpiredEvents: the function ignores every event whose deadline passed more than a minute ago.
func TestExpiredEvents(t *testing.T) {
	r := newFixture(t)
	ours := r.targets(1)[0]
	r.pin(app{name: "web"}, ours.id)
	r.waitReady("web", 1)
	r.aws.SetGroup(ours.group, func(g *spottest.Group) {
		g.Hooks = []spottest.Hook{{Name: sampleHook, Transition: spottest.HookTerminating, Heartbeat: 30 * time.Second}}
	})
	r.enableAllEvents()
	s := r.service()
	tried := 0
	for _, name := range sampleNames(t) {
		age := 185 * time.Second
		switch {
		case strings.HasPrefix(name, "health-"):
			age = 365 * 24 * time.Hour // the deadline is months ahead
		case strings.HasSuffix(name, "rebalance"), strings.HasPrefix(name, "rebalance"),
			strings.HasPrefix(name, "state-change"), name == "launch-unsuccessful", slices.Contains(selfChecks, name):
			continue // no deadline
		}
		want := spot.Expired
		if left := byDefault[name]; left.result == spot.Ignored {
			want = left.result
		}
		names := map[string]string{sampleGroup: ours.group}
		for _, id := range instancesIn(readSample(t, name)) {
			names[id] = ours.id
		}
		before := len(r.aws.Calls())
		r.outcome(r.invoke(s, r.sample(name, age, names)), want)
		if _, changes := operations(r.aws.Calls()[before:]); changes != "" {
			t.Errorf("%s: AWS got the writes %q", name, changes)
		}
		tried++
	}
	if tried < 15 {
		t.Errorf("only %d expired events", tried)
	}
	r.auditSettles()
	r.nothingChanged(ours.id)
}
