package savings_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/castai/kops-spot/internal/savings"
)

var htmlFile = flag.String("html", "", "write the page of the sample data to this file")

// sample is the output for a made-up cluster of some groups.
func sample(t *testing.T) savings.Output {
	t.Helper()
	w := newWorld()
	w.nodes("control-plane", "m5.xlarge", 3, zones, func(n *savings.Node) { n.ControlPlane = true })
	w.nodes("nodes", "m5.2xlarge", 24, zones)
	w.nodes("batch", "c5.4xlarge", 9, zones[:1])
	w.nodes("data", "m5.4xlarge", 6, zones)
	w.nodes("spot", "c5.2xlarge", 12, zones, func(n *savings.Node) { n.Spot = true })
	w.workload("nodes", "web", 60, "700m", "2Gi")
	w.workload("nodes", "api", 36, "1", "3Gi")
	w.workload("nodes", "billing", 2, "500m", "1Gi", func(_ int, p *corev1.Pod) {
		p.Annotations = map[string]string{"kops-spot.cast.ai/drain": "never"}
	})
	w.workload("batch", "encode", 18, "5", "8Gi")
	w.workload("data", "database", 6, "6", "30Gi", w.zonal)
	w.workload("spot", "worker", 40, "1500m", "2Gi")
	r, err := savings.Compute(w.Cluster, w.catalog)
	if err != nil {
		t.Fatal(err)
	}
	return savings.Output{Cluster: "prod.example.com", Region: "eu-west-1", Time: time.Date(2026, 11, 29, 9, 30, 0, 0, time.UTC),
		Prices: savings.Prices{Source: "prices.yaml", Sample: true}, Report: r,
		Risks: []savings.Risk{{Group: "batch", Allows: "only 1 instance type and only 1 zone", Advice: "name at least 6 types"}}}
}

// TestOutputs: JSON, table and page have the same amounts, and all of them mark the prices as samples.
func TestOutputs(t *testing.T) {
	o := sample(t)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var is struct {
		Prices       struct{ Sample bool }
		Now          savings.Fleet
		Spot, Packed savings.Estimate
		Risks        []savings.Risk
		Assumptions  []string
	}
	if err := json.Unmarshal(text, &is); err != nil || !is.Prices.Sample || len(is.Risks) != 1 || len(is.Assumptions) == 0 {
		t.Errorf("%v: got %s", err, text)
	}
	var page bytes.Buffer
	if err := o.HTML(&page); err != nil {
		t.Fatal(err)
	}
	if *htmlFile != "" {
		if err := os.WriteFile(*htmlFile, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if notices := o.Notices(); len(notices) != 1 || !strings.Contains(page.String(), `<p class="notice">`+notices[0]) ||
		notices[0] != "Sample prices from prices.yaml: the amounts are not real" {
		t.Errorf("the samples are not marked: %q", notices)
	}
	cells := map[string][]string{}
	for _, s := range o.Sections() {
		for _, row := range s.Rows {
			cells[s.Heading+"/"+row[0]] = row[1:]
			if want := "<td>" + strings.Join(row, "</td><td>") + "</td>"; !strings.Contains(page.String(), want) {
				t.Errorf("the page does not have the row %q", row)
			}
		}
	}
	for name, want := range map[string][]string{
		"/per month": {savings.Dollars(is.Now.Monthly), savings.Dollars(is.Spot.Monthly), savings.Dollars(is.Packed.Monthly)},
		"/saving":    {"$0.00", savings.Dollars(is.Now.Monthly - is.Spot.Monthly)},
		"/machines":  {"54", "54", fmt.Sprint(is.Packed.Machines)},
		// 24 machines of 8 cores at 5 cents an hour
		"per month, by instance group/nodes": {"$7,008.00"},
		"machines, by instance group/batch":  {"9", "9"},
		"/Spot machines":                     {"12"},
	} {
		if got := cells[name]; len(got) != 4 || strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if n := strings.Count(page.String(), "<svg "); n != 2 {
		t.Errorf("got %d charts", n)
	}
	notes := strings.Join(o.Footnotes(1), "\n")
	for _, says := range []string{"EC2 publishes no interruption rates", "group batch allows only 1 instance type and only 1 zone: name at least 6 types", "Assumption: ", " more"} {
		if !strings.Contains(notes, says) {
			t.Errorf("%q is missing in\n%s", says, notes)
		}
	}
	o.Prices = savings.Prices{Source: "EC2 and the Price List API"}
	if notes := strings.Join(o.Footnotes(1), "\n"); len(o.Notices()) > 0 || !strings.Contains(notes, "\nPrices: EC2 and the Price List API\n") {
		t.Errorf("real prices: %q\n%s", o.Notices(), notes)
	}
}

// TestConcentrated has groups that an estimate reduces to one type or to few Spot machines.
func TestConcentrated(t *testing.T) {
	row := func(group, kind string, spot bool, count int) savings.Row {
		return savings.Row{Group: group, Type: kind, Spot: spot, Count: count}
	}
	o := savings.Output{}
	o.Now.Rows = []savings.Row{row("types", "a", false, 9), row("types", "b", false, 9), row("one type", "a", false, 9), row("few", "a", true, 3),
		row("were few", "a", false, 2), row("on demand", "a", false, 9), row("", "a", false, 9), row("", "b", false, 9)}
	o.Packed.Rows = []savings.Row{row("types", "a", true, 9), row("one type", "a", true, 9), row("few", "a", false, 3), row("few", "a", true, 2),
		row("were few", "b", true, 2), row("on demand", "a", false, 1), row("", "a", true, 1)}
	o.Resized.Rows = o.Now.Rows
	notes := strings.Join(o.Footnotes(9), "\n")
	if strings.Count(notes, "instead of several") != 1 || !strings.Contains(notes, "\nInterruptions: packed: one instance type instead of several, "+
		"or fewer than 3 Spot machines, in (2): few, types\n") {
		t.Error(notes)
	}
}

func TestDollars(t *testing.T) {
	for amount, want := range map[float64]string{0: "$0.00", 0.004: "$0.00", -0.004: "$0.00", 0.995: "$1.00", 999.999: "$1,000.00", 12.5: "$12.50",
		1234567.891: "$1,234,567.89", -1234.5: "-$1,234.50"} {
		if got := savings.Dollars(amount); got != want {
			t.Errorf("%g: got %s, want %s", amount, got, want)
		}
	}
}

// TestGap: the headroom is part of what an estimate costs above its bound.
func TestGap(t *testing.T) {
	e := savings.Estimate{Fleet: savings.Fleet{Monthly: 150}, Bound: 100, HeadroomMonthly: 25}
	if got := e.Gap(); got != 0.5 {
		t.Errorf("got %g", got)
	}
}
