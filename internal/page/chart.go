package page

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Chart is a bar chart.
type Chart struct {
	Title      string
	Names      []string // of the bars, or of the groups of bars; horizontal bars begin at the bottom
	Series     []Series
	Horizontal bool
	Stacked    bool
	Unit       string // of the values
}

// Series is one value for each name.
type Series struct {
	Name   string
	Color  string // #rrggbb, with a contrast of at least 3:1 to white and to black
	Values []float64
}

// The colors.
const (
	Green, Amber, Red, Gray = "#2e9e5b", "#c97f00", "#e5484d", "#858b98"
	Blue, Violet            = "#3f86e0", "#a56ee0"
)

const (
	width   = 720
	bar     = 11.0 // of a horizontal bar
	between = 9.0  // groups of horizontal bars
	plain   = 190  // the height of a chart with vertical bars
)

// svg draws the bars as an SVG element.
func (c *Chart) svg() (string, error) {
	p := plot.New()
	p.BackgroundColor = nil
	names, values := &p.X, &p.Y
	grid := plotter.NewGrid()
	line, other := &grid.Horizontal, &grid.Vertical
	height, thick := float64(plain), vg.Length(min(0.75*(width-60)/float64(len(c.Names)), 40))
	if c.Horizontal {
		names, values = values, names
		line, other = other, line
		perName := bar
		if !c.Stacked {
			perName *= float64(len(c.Series))
		}
		height, thick = 45+float64(len(c.Names))*(perName+between), bar
	}
	line.Color, line.Width, other.Color = rgb(Gray), 0.4, nil
	p.Add(grid)
	var below *plotter.BarChart
	for i, s := range c.Series {
		bars, err := plotter.NewBarChart(plotter.Values(s.Values), thick)
		if err != nil {
			return "", err
		}
		bars.Color, bars.LineStyle.Width, bars.Horizontal = rgb(s.Color), 0, c.Horizontal
		switch {
		case !c.Stacked:
			bars.Offset = thick * vg.Length(float64(len(c.Series)-1)/2-float64(i))
		case below != nil:
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
	}
	values.Min, values.Max, values.Label.Text = 0, 1.02*max(values.Max, 1), c.Unit
	values.Tick.Marker = plot.TickerFunc(wholeTicks)
	names.Min, names.Max = -0.5, float64(len(c.Names))-0.5
	names.Tick.Marker = plot.ConstantTicks(c.nameTicks())
	names.Tick.Length, names.Tick.LineStyle.Color = 8, color.Transparent // only the distance
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Padding, a.Tick.Label.Font, a.Label.TextStyle.Font = 0, sans, sans
	}
	canvas := vgsvg.New(width, vg.Length(height))
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", err
	}
	_, svg, found := bytes.Cut(b.Bytes(), []byte("<svg ")) // after an XML declaration, which HTML does not have
	if !found {
		return "", fmt.Errorf("no svg element in %.100q", b.String())
	}
	return "<svg role=\"img\" " + string(svg), nil
}

var sans = font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 10)

// nameTicks has a label for each name, but for at most ten vertical bars.
func (c *Chart) nameTicks() (ticks []plot.Tick) {
	step := 1
	if !c.Horizontal {
		step = (len(c.Names) + 9) / 10
	}
	for i := 0; i < len(c.Names); i += step {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: c.Names[i]})
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
