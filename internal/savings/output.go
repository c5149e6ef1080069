package savings

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/page"
)

// Output is the report with where its numbers come from.
type Output struct {
	Cluster string    `json:"cluster"`
	Region  string    `json:"region"`
	Time    time.Time `json:"time"`
	Prices  Prices    `json:"prices"`
	Report
	// Risks are the groups that would be interrupted less often with more types or zones.
	Risks []Risk `json:"risks"`
}

// Prices are where the prices come from.
type Prices struct {
	Source string `json:"source"`
	Sample bool   `json:"sample"` // they are not AWS's
}

// Risk is why EC2 may interrupt a group's Spot Instances often.
type Risk struct {
	Group  string `json:"group"`
	Allows string `json:"allows"`
	Advice string `json:"advice"`
}

// Title names the cluster.
func (o Output) Title() string {
	return fmt.Sprintf("Savings estimate for %s, region %s, %s UTC", o.Cluster, o.Region, o.Time.Format("2006-01-02 15:04"))
}

// Notices warn about the prices.
func (o Output) Notices() []string {
	if o.Prices.Sample {
		return []string{"Sample prices from " + o.Prices.Source + ": the amounts are not real"}
	}
	return nil
}

// Columns are the headings of Sections: the fleets.
var Columns = []string{"", "now", "Spot", "packed", "resized"}

// Sections returns the table: the amounts of each estimate, in all and by group.
func (o Output) Sections() []page.Section {
	fleets := o.fleets()
	bounds, gaps, headroom, ofIt := []string{""}, []string{""}, []string{""}, []string{""}
	for _, e := range o.Estimates() {
		bounds, gaps = append(bounds, Dollars(e.Bound)), append(gaps, percent(e.Gap()))
		headroom, ofIt = append(headroom, strconv.Itoa(e.Headroom)), append(ofIt, Dollars(e.HeadroomMonthly))
	}
	row := func(name string, cell func(Fleet) string) []string {
		cells := []string{name}
		for _, f := range fleets {
			cells = append(cells, cell(f))
		}
		return cells
	}
	all := []page.Section{{Rows: [][]string{
		row("per month", func(f Fleet) string { return Dollars(f.Monthly) }),
		append([]string{"including headroom"}, ofIt...),
		row("saving", func(f Fleet) string { return Dollars(o.Now.Monthly - f.Monthly) }),
		row("saving, %", func(f Fleet) string { return percent(1 - f.Monthly/math.Max(o.Now.Monthly, 0.01)) }),
		append([]string{"lower bound"}, bounds...),
		append([]string{"above the bound"}, gaps...),
		row("machines", func(f Fleet) string { return strconv.Itoa(f.Machines) }),
		row("Spot machines", func(f Fleet) string { return strconv.Itoa(f.count(func(r Row) bool { return r.Spot })) }),
		append([]string{"headroom machines"}, headroom...),
	}}, {Heading: "per month, by instance group"}, {Heading: "machines, by instance group"}}
	for _, group := range o.groups() {
		in := func(r Row) bool { return r.Group == group }
		all[1].Rows = append(all[1].Rows, row(groupName(group), func(f Fleet) string { return Dollars(f.monthly(in)) }))
		all[2].Rows = append(all[2].Rows, row(groupName(group), func(f Fleet) string { return strconv.Itoa(f.count(in)) }))
	}
	return all
}

// groups returns the groups that have machines, ordered by name.
func (o Output) groups() (names []string) {
	for _, f := range o.fleets() {
		for _, r := range f.Rows {
			names = append(names, r.Group)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fleets returns the fleets in the order of the columns.
func (o Output) fleets() []Fleet {
	return []Fleet{o.Now, o.Spot.Fleet, o.Packed.Fleet, o.Resized.Fleet}
}

func groupName(group string) string {
	if group == "" {
		return "no group"
	}
	return group
}

func (f Fleet) count(of func(Row) bool) (n int) {
	for _, r := range f.Rows {
		if of(r) {
			n += r.Count
		}
	}
	return n
}

func (f Fleet) monthly(of func(Row) bool) (sum float64) {
	for _, r := range f.Rows {
		if of(r) {
			sum += float64(r.Count) * r.Hourly * HoursPerMonth
		}
	}
	return sum
}

// Footnotes are what the amounts depend on. Each reason names at most some of its subjects.
func (o Output) Footnotes(subjects int) (notes []string) {
	of := map[string][]string{} // columns by reason
	for i, e := range o.Estimates() {
		for _, r := range e.Reasons {
			text := fmt.Sprintf("%s (%d): %s", r.Text, len(r.Subjects), few(r.Subjects, subjects))
			if of[text] = append(of[text], Columns[i+2]); len(of[text]) == 1 {
				notes = append(notes, text)
			}
		}
	}
	for i, text := range notes {
		notes[i] = strings.Join(of[text], ", ") + ": " + text
	}
	notes = append(notes, "Interruptions: EC2 publishes no interruption rates by API, so the estimates do not contain what they "+
		"cost. More instance types and zones mean fewer of them.")
	for _, r := range o.Risks {
		notes = append(notes, "Interruptions: group "+r.Group+" allows "+r.Allows+": "+r.Advice)
	}
	for i, e := range o.Estimates() {
		if groups := concentrated(o.Now, e.Fleet); len(groups) > 0 {
			notes = append(notes, fmt.Sprintf("Interruptions: %s: one instance type instead of several, or fewer than %d Spot machines, in "+
				"(%d): %s", Columns[i+2], fewMachines, len(groups), few(groups, subjects)))
		}
	}
	if !o.Prices.Sample {
		notes = append(notes, "Prices: "+o.Prices.Source)
	}
	for _, a := range o.Assumptions {
		notes = append(notes, "Assumption: "+a)
	}
	return notes
}

// fewMachines are so few that the interruption of one takes a large part of a group's pods.
const fewMachines = 3

// concentrated returns the groups with Spot machines of only one type, or only few of them, if there are more now.
func concentrated(now, then Fleet) (groups []string) {
	type size struct {
		types    map[string]bool
		machines int
	}
	of := func(f Fleet, spotOnly bool) map[string]size {
		all := map[string]size{}
		for _, r := range f.Rows {
			if s := all[r.Group]; r.Group != "" && (r.Spot || !spotOnly) {
				if s.types == nil {
					s.types = map[string]bool{}
				}
				s.types[r.Type] = true
				s.machines += r.Count
				all[r.Group] = s
			}
		}
		return all
	}
	before := of(now, false)
	for name, s := range of(then, true) {
		if len(s.types) == 1 && len(before[name].types) > 1 || s.machines < min(fewMachines, before[name].machines) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return groups
}

// few joins at most n names, and says how many more there are.
func few(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

// Dollars formats an amount in US dollars: $1,234.50
func Dollars(amount float64) string {
	cents := int64(math.Round(math.Abs(amount) * 100))
	text := strconv.FormatInt(cents/100, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	sign := ""
	if amount < 0 && cents > 0 {
		sign = "-"
	}
	return fmt.Sprintf("%s$%s.%02d", sign, text, cents%100)
}

func percent(part float64) string {
	return fmt.Sprintf("%.0f %%", math.Round(100*part)+0) // not -0 %
}
