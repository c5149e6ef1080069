// Package report summarizes the interruptions in the function's log. Only the command line imports it: it links a
// library that draws charts.
package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// Report summarizes the interruptions of a cluster's instances.
type Report struct {
	Cluster    string    `json:"cluster"`
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until"`
	Total      Row       `json:"total"`
	Groups     []Row     `json:"groups"`
	Types      []Row     `json:"types"`
	Zones      []Row     `json:"zones"`
	Days       []Row     `json:"days"`       // in UTC, also those without interruptions
	Rehearsals int       `json:"rehearsals"` // not counted elsewhere
	Notices    []string  `json:"notices,omitempty"`

	pools map[pool]int // events
}

// pool is a Spot capacity pool.
type pool struct{ kind, zone string }

// Row summarizes some of the interruptions.
type Row struct {
	Name             string              `json:"name,omitempty"`
	Events           int                 `json:"events"`
	Results          map[spot.Result]int `json:"results"`
	ForceDeletedPods int                 `json:"force_deleted_pods"`
	P50              *spot.Seconds       `json:"time_to_empty_p50,omitempty"`
	P99              *spot.Seconds       `json:"time_to_empty_p99,omitempty"`

	// ReplacementFailures counts failed launches. An event about one names the group only.
	ReplacementFailures int `json:"replacement_failures,omitempty"`

	empty []spot.Seconds // times to empty
}

const (
	unknown = "unknown" // the function could not read it
	none    = "none"    // the instance has no group

	day = "2006-01-02"
)

// New reads the function's log since a time, and summarizes it.
func New(ctx context.Context, cfg aws.Config, cluster string, log awsadmin.LogGroup, since time.Time) (*Report, error) {
	return read(ctx, cloudwatchlogs.NewFromConfig(cfg), cluster, log, since, time.Now())
}

func read(ctx context.Context, client client, cluster string, log awsadmin.LogGroup, since, until time.Time) (
	*Report, error) {
	var notices []string
	if kept := until.Add(-log.Retention); log.Retention > 0 && kept.After(since) {
		since = kept
		notices = append(notices, fmt.Sprintf("the log is kept for %d days only: to report on more, set the stack "+
			"parameter LogRetentionDays", log.Retention/(24*time.Hour)))
	}
	if log.Created.After(since) { // CloudWatch Logs rejects a query that ends before that
		since = log.Created
	}
	r := reader{client: client, group: log.Name}
	if err := r.read(ctx, since.Unix(), until.Unix()+1); err != nil {
		return nil, err
	}
	report := summarize(cluster, since, until, r.outcomes)
	report.Notices = append(notices, r.notices()...)
	return report, nil
}

// summarize counts each event about an instance once.
func summarize(cluster string, since, until time.Time, outcomes []spot.Outcome) *Report {
	r := &Report{Cluster: cluster, Since: since.UTC().Truncate(time.Second), Until: until.UTC().Truncate(time.Second),
		Total: *newRow(""), pools: map[pool]int{}}
	groups, types, zones, days := rows{}, rows{}, rows{}, rows{}
	for at := r.Since.Truncate(24 * time.Hour); !at.After(r.Until); at = at.Add(24 * time.Hour) {
		days.of(at.Format(day))
	}
	for _, out := range distinct(outcomes) {
		today := r.Since // of an event that came before, but was handled in the period
		if out.Event.Time.After(today) {
			today = out.Event.Time.UTC()
		}
		switch {
		case out.Event.Rehearsal:
			r.Rehearsals++
		case out.Result == spot.ReplacementFailed:
			group := groups.of(cmp.Or(out.Event.Group, unknown))
			for _, row := range []*Row{&r.Total, days.of(today.Format(day)), group} {
				row.ReplacementFailures++
			}
		case slices.Contains(spot.WarningKinds(), out.Event.Kind):
			group := out.Instance.Group
			if group == "" && out.Instance.Lifecycle != "" { // EC2 was read
				group = none
			}
			in := pool{cmp.Or(out.Instance.Type, unknown), cmp.Or(out.Instance.Zone, unknown)}
			r.pools[in]++
			for _, row := range []*Row{&r.Total, days.of(today.Format(day)), groups.of(cmp.Or(group, unknown)),
				types.of(in.kind), zones.of(in.zone)} {
				row.count(out)
			}
		}
	}
	r.Total.finish()
	mostEvents := func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Name, b.Name))
	}
	r.Groups, r.Types, r.Zones = groups.sorted(mostEvents), types.sorted(mostEvents), zones.sorted(mostEvents)
	r.Days = days.sorted(func(a, b Row) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// distinct returns one outcome for each event and instance. If an event was handled more than once, it is the most
// severe, so that no failure is hidden.
func distinct(outcomes []spot.Outcome) (all []spot.Outcome) {
	type key struct{ event, instance string }
	index := map[key]int{}
	for _, out := range outcomes {
		each := out.Outcomes
		if len(each) == 0 {
			each = []spot.Outcome{out}
		}
		for _, one := range each {
			// A skipped lifecycle action is another program's: no interruption.
			if !one.Result.ConcernsCluster() || one.Event.ID == eventbridge.SyntheticEventID ||
				one.Result == spot.Skipped && one.Event.Kind == spot.LifecycleTerminate {
				continue
			}
			k := key{one.Event.ID, one.Event.Instance}
			i, seen := index[k]
			switch {
			case !seen:
				index[k], all = len(all), append(all, one)
			case one.Result.Severity() < all[i].Result.Severity():
				all[i] = one
			}
		}
	}
	return all
}

// rows are rows by name.
type rows map[string]*Row

func (r rows) of(name string) *Row {
	if r[name] == nil {
		r[name] = newRow(name)
	}
	return r[name]
}

func (r rows) sorted(by func(a, b Row) int) []Row {
	all := make([]Row, 0, len(r))
	for _, row := range r {
		row.finish()
		all = append(all, *row)
	}
	slices.SortFunc(all, by)
	return all
}

func newRow(name string) *Row {
	return &Row{Name: name, Results: map[spot.Result]int{spot.Drained: 0, spot.Incomplete: 0, spot.Missed: 0}}
}

// count adds an event.
func (r *Row) count(out spot.Outcome) {
	r.Events++
	r.Results[out.Result]++
	r.ForceDeletedPods += out.PodCounts()[spot.PodForceDeleted]
	if out.Result == spot.Drained && out.Timings.Empty != nil {
		r.empty = append(r.empty, *out.Timings.Empty)
	}
}

func (r *Row) finish() {
	slices.Sort(r.empty)
	r.P50, r.P99 = percentile(r.empty, 50), percentile(r.empty, 99)
}

// percentile returns the smallest value that at least p percent of the sorted values do not exceed (nearest rank).
func percentile(sorted []spot.Seconds, p float64) *spot.Seconds {
	if len(sorted) == 0 {
		return nil
	}
	return &sorted[int(math.Ceil(p/100*float64(len(sorted))))-1]
}

// incomplete is the number of events that were not handled completely: their failures must not look like other results.
func (r Row) incomplete() int { return r.Results[spot.Incomplete] + r.Results[spot.NodeNotFound] }

// others is the number of events with other results than those that have a column.
func (r Row) others() int {
	return r.Events - r.Results[spot.Drained] - r.incomplete() - r.Results[spot.Missed]
}

// Title names the cluster and the period.
func (r *Report) Title() string {
	const minute = "2006-01-02 15:04"
	return fmt.Sprintf("Interruptions of %s, %s to %s UTC", r.Cluster, r.Since.Format(minute), r.Until.Format(minute))
}

// Section is a part of the report's table.
type Section struct {
	Heading  string
	Rows     []Row
	failures bool // a failed launch is of one of the rows
}

// Sections returns the parts of the table.
func (r *Report) Sections() []Section {
	total := r.Total
	total.Name = "total"
	return []Section{{"", []Row{total}, true}, {"by group", r.Groups, true}, {"by type", r.Types, false},
		{"by zone", r.Zones, false}}
}

// Columns are the headings of Cells.
var Columns = []string{"", "events", "drained", "incomplete", "missed", "other", "force-deleted", "empty p50", "empty p99",
	"failed replacements"}

// Cells returns a row as text.
func (s Section) Cells(r Row) []string {
	cells := []string{r.Name}
	for _, n := range []int{r.Events, r.Results[spot.Drained], r.incomplete(), r.Results[spot.Missed],
		r.others(), r.ForceDeletedPods} {
		cells = append(cells, strconv.Itoa(n))
	}
	for _, p := range []*spot.Seconds{r.P50, r.P99} {
		text := ""
		if p != nil {
			text = fmt.Sprintf("%.1f s", float64(*p))
		}
		cells = append(cells, text)
	}
	text := ""
	if s.failures {
		text = strconv.Itoa(r.ReplacementFailures)
	}
	return append(cells, text)
}

// Footnotes explain the table.
func (r *Report) Footnotes() (notes []string) {
	for _, result := range slices.Sorted(maps.Keys(r.Total.Results)) {
		switch n := r.Total.Results[result]; result {
		case spot.Drained, spot.Incomplete, spot.Missed:
		case spot.NodeNotFound:
			notes = append(notes, fmt.Sprintf("incomplete: %d of them %s", n, result))
		default:
			notes = append(notes, fmt.Sprintf("other: %d %s", n, result))
		}
	}
	if r.Rehearsals > 0 {
		notes = append(notes, fmt.Sprintf("rehearsals, which are not counted: %d", r.Rehearsals))
	}
	return notes
}
