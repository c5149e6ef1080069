package savings

import (
	"cmp"
	"io"
	"slices"
	"strconv"

	"github.com/castai/kops-spot/internal/page"
)

const (
	// mostGroups is the number of groups in a chart. The table has all.
	mostGroups = 15

	// mostSubjects is the number of names in a reason of the page. The JSON output has all.
	mostSubjects = 50
)

// HTML writes the report as one page.
func (o Output) HTML(w io.Writer) error {
	p := page.New(o.Title(), o.Notices())
	for _, c := range []page.Chart{o.perEstimate(), o.perGroup()} {
		if err := p.Chart(c); err != nil {
			return err
		}
	}
	p.Table(Columns, o.Sections()...)
	p.Heading("Why, and what is assumed")
	p.Text(o.Footnotes(mostSubjects)...)
	p.Heading("Machines")
	var machines []page.Section
	for i, f := range o.fleets() {
		s := page.Section{Heading: Columns[i+1]}
		for _, r := range f.Rows {
			s.Rows = append(s.Rows, []string{groupName(r.Group), r.Type, r.Zone, lifecycle(r.Spot), strconv.Itoa(r.Count),
				strconv.FormatFloat(r.Hourly, 'f', 4, 64), Dollars(float64(r.Count) * r.Hourly * HoursPerMonth)})
		}
		machines = append(machines, s)
	}
	p.Table([]string{"group", "type", "zone", "lifecycle", "machines", "$ per hour", "per month"}, machines...)
	_, err := p.WriteTo(w)
	return err
}

func lifecycle(spot bool) string {
	if spot {
		return "Spot"
	}
	return "on-demand"
}

// perEstimate shows what each estimate costs.
func (o Output) perEstimate() page.Chart {
	c := page.Chart{Title: "Cost per month", Unit: "US dollars", Horizontal: true, Stacked: true,
		Series: []page.Series{{Name: "on demand", Color: page.Amber}, {Name: "Spot", Color: page.Green}}}
	for i, f := range slices.Backward(o.fleets()) {
		c.Names = append(c.Names, Columns[i+1])
		for s, spot := range []bool{false, true} {
			c.Series[s].Values = append(c.Series[s].Values, f.monthly(func(r Row) bool { return r.Spot == spot }))
		}
	}
	return c
}

// perGroup shows what the groups cost that cost most now.
func (o Output) perGroup() page.Chart {
	c := page.Chart{Title: "Cost per month, by instance group", Unit: "US dollars", Horizontal: true}
	for i, color := range []string{page.Gray, page.Green, page.Blue, page.Violet} {
		c.Series = append(c.Series, page.Series{Name: Columns[i+1], Color: color})
	}
	groups := o.groups()
	costs := func(group string) float64 { return o.Now.monthly(func(r Row) bool { return r.Group == group }) }
	slices.SortStableFunc(groups, func(a, b string) int { return cmp.Compare(costs(b), costs(a)) })
	groups = groups[:min(len(groups), mostGroups)]
	for _, group := range slices.Backward(groups) {
		c.Names = append(c.Names, groupName(group))
		for i, f := range o.fleets() {
			c.Series[i].Values = append(c.Series[i].Values, f.monthly(func(r Row) bool { return r.Group == group }))
		}
	}
	return c
}
