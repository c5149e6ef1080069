package main

import (
	"math"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	example := table{title: "one and another",
		columns: []column{{name: "time", unit: seconds}, {name: "requests"}, {name: "done", total: 50},
			{name: "lists", plain: true}, {name: "size", unit: megabytes}},
		rows: []row{
			{"ours", []float64{0.1234, 34, 50, 0, 7.041}},
			{"theirs", []float64{12.34, 79, 20, 2, 3.5}},
			{"nobody's", []float64{math.Inf(1), 0, 0, 2, 704}},
		}}
	want := `**one and another**

| | time | requests | done | lists | size |
|---|---|---|---|---|---|
| ours | 0.123 s (1.0×) | 34 (1.0×) | 50 of 50 | 0 | 7.04 MB (1.0×) |
| theirs | 12.3 s (100×) | 79 (2.3×) | 20 of 50 | 2 | 3.50 MB (0.5×) |
| nobody's | never | 0 (0.0×) | 0 of 50 | 2 | 704 MB (100×) |
`
	if got := example.Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var b strings.Builder
	example.text(&b)
	if want := "theirs    12.3 s (100×)   79 (2.3×)  20 of 50  2      3.50 MB (0.5×)\n"; !strings.Contains(b.String(),
		want) {
		t.Errorf("%q is not in\n%s", want, b.String())
	}
}
