package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/castai/kops-spot/internal/spot"
)

// chart is a bar chart.
type chart struct {
	title      string
	names      []string // of the bars, or of the groups of bars
	series     []series
	horizontal bool
	stacked    bool
	unit       string // of the values
	svg        string
}

// series is one value for each name.
type series struct {
	name   string
	color  string // #rrggbb, with a contrast of at least 3:1 to white and to black
	values plotter.Values
}

// The colors.
const (
	green, amber, red, gray = "#2e9e5b", "#c97f00", "#e5484d", "#858b98"
	blue, violet            = "#3f86e0", "#a56ee0"
)

// zoneColors are the colors of the zones, and the last is that of all further zones.
var zoneColors = []string{blue, green, amber, violet, red, gray}

// mostNames is the number of groups or types in a chart. The table has all.
const mostNames = 15

// charts draws the charts; none without an event.
func (r *Report) charts() (all []chart, err error) {
	if r.Total.Events == 0 {
		return nil, nil
	}
	all = []chart{r.perDay(), r.toEmpty(), r.perPool()}
	for i := range all {
		if err := all[i].draw(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (r *Report) perDay() chart {
	c := chart{title: "Events per day (UTC)", stacked: true, series: []series{{name: "drained", color: green},
		{name: "incomplete", color: amber}, {name: "missed", color: red}, {name: "other", color: gray}}}
	for _, d := range r.Days {
		at, _ := time.Parse(day, d.Name)
		c.names = append(c.names, at.Format("Jan 2"))
		for i, n := range []int{d.Results[spot.Drained], d.incomplete(), d.Results[spot.Missed], d.others()} {
			c.series[i].values = append(c.series[i].values, float64(n))
		}
	}
	return c
}

func (r *Report) toEmpty() chart {
	c := chart{title: "Time to empty by group", unit: "seconds", horizontal: true,
		series: []series{{name: "p50", color: blue}, {name: "p99", color: violet}}}
	for _, g := range most(r.Groups) {
		c.names = append(c.names, g.Name)
		for i, s := range []*spot.Seconds{g.P50, g.P99} {
			value := 0.0
			if s != nil {
				value = float64(*s)
			}
			c.series[i].values = append(c.series[i].values, value)
		}
	}
	return c
}

func (r *Report) perPool() chart {
	c := chart{title: "Events by type and zone", horizontal: true, stacked: true}
	types := most(r.Types)
	for _, t := range types {
		c.names = append(c.names, t.Name)
	}
	zones := slices.Clone(r.Zones)
	slices.SortFunc(zones, func(a, b Row) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	for i, z := range zones {
		if i < len(zoneColors) {
			c.series = append(c.series, series{z.Name, zoneColors[i], make(plotter.Values, len(types))})
		}
		s := &c.series[len(c.series)-1]
		if i == len(zoneColors) {
			s.name = "other zones"
		}
		for j, t := range types {
			s.values[j] += float64(r.pools[pool{t.Name, z.Name}])
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

const (
	width   = 720
	bar     = 11.0 // of a horizontal bar
	between = 9.0  // groups of horizontal bars
	plain   = 190  // the height of a chart with vertical bars
)

// draw draws the bars.
func (c *chart) draw() error {
	p := plot.New()
	p.BackgroundColor = nil
	names, values := &p.X, &p.Y
	grid := plotter.NewGrid()
	line, other := &grid.Horizontal, &grid.Vertical
	height, thick := float64(plain), vg.Length(min(0.75*(width-60)/float64(len(c.names)), 40))
	if c.horizontal {
		names, values = values, names
		line, other = other, line
		perName := bar
		if !c.stacked {
			perName *= float64(len(c.series))
		}
		height, thick = 45+float64(len(c.names))*(perName+between), bar
	}
	line.Color, line.Width, other.Color = rgb(gray), 0.4, nil
	p.Add(grid)
	var below *plotter.BarChart
	for i, s := range c.series {
		bars, err := plotter.NewBarChart(s.values, thick)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width, bars.Horizontal = rgb(s.color), 0, c.horizontal
		switch {
		case !c.stacked:
			bars.Offset = thick * vg.Length(float64(len(c.series)-1)/2-float64(i))
		case below != nil:
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
	}
	values.Min, values.Max, values.Label.Text = 0, 1.02*max(values.Max, 1), c.unit
	values.Tick.Marker = plot.TickerFunc(wholeTicks)
	names.Min, names.Max = -0.5, float64(len(c.names))-0.5
	names.Tick.Marker = plot.ConstantTicks(c.nameTicks())
	names.Tick.LineStyle.Width = 0
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Padding, a.Tick.Label.Font, a.Label.TextStyle.Font = 0, sans, sans
	}
	canvas := vgsvg.New(width, vg.Length(height))
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	_, svg, found := bytes.Cut(b.Bytes(), []byte("<svg ")) // after an XML declaration, which HTML does not have
	if !found {
		return fmt.Errorf("no svg element in %.100q", b.String())
	}
	c.svg = "<svg role=\"img\" " + string(svg)
	return nil
}

var sans = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 10)

// nameTicks has a label for each name, but for at most ten vertical bars.
func (c *chart) nameTicks() (ticks []plot.Tick) {
	step := 1
	if !c.horizontal {
		step = (len(c.names) + 9) / 10
	}
	for i := 0; i < len(c.names); i += step {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: c.names[i]})
	}
	return ticks
}

// wholeTicks omits fractions.
func wholeTicks(min, max float64) (ticks []plot.Tick) {
	for _, t := range (plot.DefaultTicks{}).Ticks(min, max) {
		if !t.IsMinor() && t.Value == math.Trunc(t.Value) {
			ticks = append(ticks, plot.Tick{Value: t.Value, Label: strconv.Itoa(int(t.Value))})
		}
	}
	return ticks
}

// rgb returns the color #rrggbb.
func rgb(hex string) color.Color {
	c := color.RGBA{A: 255}
	_, _ = fmt.Sscanf(hex, "#%02x%02x%02x", &c.R, &c.G, &c.B) // a constant
	return c
}
