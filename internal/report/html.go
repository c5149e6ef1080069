package report

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/page"
	"github.com/castai/kops-spot/internal/spot"
)

// HTML writes the report as one page.
func (r *Report) HTML(w io.Writer) error {
	p := page.New(r.Title(), r.Notices)
	for _, c := range r.charts() {
		if err := p.Chart(c); err != nil {
			return err
		}
	}
	var sections []page.Section
	for _, s := range r.Sections() {
		section := page.Section{Heading: s.Heading}
		for _, row := range s.Rows {
			section.Rows = append(section.Rows, s.Cells(row))
		}
		sections = append(sections, section)
	}
	p.Table(Columns, sections...)
	p.Text(append(r.Footnotes(), meaning)...)
	_, err := p.WriteTo(w)
	return err
}

// zoneColors are the colors of the zones, and the last is that of all further zones.
var zoneColors = []string{page.Blue, page.Green, page.Amber, page.Violet, page.Red, page.Gray}

// mostNames is the number of groups or types in a chart. The table has all.
const mostNames = 15

// charts returns the charts; none without an event.
func (r *Report) charts() []page.Chart {
	if r.Total.Events == 0 {
		return nil
	}
	return []page.Chart{r.perDay(), r.toEmpty(), r.perPool()}
}

func (r *Report) perDay() page.Chart {
	c := page.Chart{Title: "Events per day (UTC)", Stacked: true, Series: []page.Series{{Name: "drained", Color: page.Green},
		{Name: "incomplete", Color: page.Amber}, {Name: "missed", Color: page.Red}, {Name: "other", Color: page.Gray}}}
	for _, d := range r.Days {
		at, _ := time.Parse(day, d.Name)
		c.Names = append(c.Names, at.Format("Jan 2"))
		for i, n := range []int{d.Results[spot.Drained], d.incomplete(), d.Results[spot.Missed], d.others()} {
			c.Series[i].Values = append(c.Series[i].Values, float64(n))
		}
	}
	return c
}

func (r *Report) toEmpty() page.Chart {
	c := page.Chart{Title: "Time to empty by group", Unit: "seconds", Horizontal: true,
		Series: []page.Series{{Name: "p50", Color: page.Blue}, {Name: "p99", Color: page.Violet}}}
	for _, g := range most(r.Groups) {
		c.Names = append(c.Names, g.Name)
		for i, s := range []*spot.Seconds{g.P50, g.P99} {
			value := 0.0
			if s != nil {
				value = float64(*s)
			}
			c.Series[i].Values = append(c.Series[i].Values, value)
		}
	}
	return c
}

func (r *Report) perPool() page.Chart {
	c := page.Chart{Title: "Events by type and zone", Horizontal: true, Stacked: true}
	types := most(r.Types)
	for _, t := range types {
		c.Names = append(c.Names, t.Name)
	}
	zones := slices.Clone(r.Zones)
	slices.SortFunc(zones, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	for i, z := range zones {
		if i < len(zoneColors) {
			c.Series = append(c.Series, page.Series{Name: z.Name, Color: zoneColors[i], Values: make([]float64, len(types))})
		}
		s := &c.Series[len(c.Series)-1]
		if i == len(zoneColors) {
			s.Name = "other zones"
		}
		for j, t := range types {
			s.Values[j] += float64(r.pools[pool{t.Name, z.Name}])
		}
	}
	return c
}

// most returns the rows with the most events, in the order of a vertical axis: from the bottom.
func most(rows []Row) []Row {
	rows = slices.Clone(rows[:min(len(rows), mostNames)])
	slices.Reverse(rows)
	return rows
}

const meaning = `The events announce the end of an instance of the cluster, or recommend replacing it. Each is counted
once for each instance, with its most severe result. The time to empty is the time from the event until the last pod
that had to leave the node was gone, of the nodes that were drained; p50 and p99 are nearest-rank percentiles. Failed
replacements are failed launches of a group that lacks the replacement of a detached instance: Auto Scaling retries the
launch, so one shortage may count several times, and does not name its type and zone.`
