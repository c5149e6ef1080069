package bench

import (
	"math"
	"strings"
	"testing"
)

// TestQuick runs everything in small: whether it works, not how fast it is.
func TestQuick(t *testing.T) {
	r, err := Run(t.Context(), Options{Quick: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range CaseNames() {
		if len(r.Section(name)) == 0 {
			t.Errorf("the case %s made no table", name)
		}
		for _, table := range r.Section(name) {
			if len(table.Rows) < 2 {
				t.Errorf("%s: %d rows are no comparison", table.Title, len(table.Rows))
			}
			for _, row := range table.Rows {
				if len(row.Cells) != len(table.Columns) {
					t.Errorf("%s: %s has %d cells for %d columns", table.Title, row.Name, len(row.Cells), len(table.Columns))
				}
				for i, v := range row.Cells {
					if math.IsNaN(v) || v < 0 {
						t.Errorf("%s: %s: %s is %v", table.Title, row.Name, table.Columns[i].Name, v)
					}
				}
			}
		}
	}
	for _, trial := range r.Trials {
		beaten := strings.Contains(trial.Case, "guarded") && strings.HasPrefix(trial.Contender, "kubectl")
		if emptied := int(trial.Figures.NodesEmpty) == trial.Nodes; emptied == beaten {
			t.Errorf("%s: %s emptied %v of %d nodes", trial.Case, trial.Contender, trial.Figures.NodesEmpty, trial.Nodes)
		}
		if trial.Figures.Requests == 0 || math.IsInf(trial.Figures.LastCordon, 0) {
			t.Errorf("%s: nothing was noted of %s: %+v", trial.Case, trial.Contender, trial.Figures)
		}
	}
	page, err := r.Markdown()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Sections {
		for _, table := range s.Tables {
			if !strings.Contains(string(page), table.Markdown()) {
				t.Errorf("the document lacks the table %q", table.Title)
			}
		}
	}
	if strings.Contains(string(page), "%!") {
		t.Errorf("the document is garbled:\n%s", page)
	}
}
