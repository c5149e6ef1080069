package main

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestQuick runs each case once with small sizes, as a smoke test.
func TestQuick(t *testing.T) {
	r := report{Tables: map[string][]table{}}
	var mu sync.Mutex
	t.Run("cases", func(t *testing.T) {
		// Cases that share no control plane run in parallel: they mostly wait.
		for _, names := range []string{"cold", "cleanup", slotsCase, "drain guarded latency notify growth"} {
			t.Run(names, func(t *testing.T) {
				t.Parallel()
				part, err := runCases(t.Context(), quick(), strings.Fields(names), t.Output())
				if err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(r.Tables, part.Tables)
				r.trials = append(r.trials, part.trials...)
			})
		}
	})
	page, err := r.markdown()
	if err != nil {
		t.Fatal(err)
	}
	operations := filepath.Join(t.TempDir(), "operations.md")
	if err := os.WriteFile(operations, []byte("before\n"+resultsBegin+"old\n"+resultsEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inserted, err := r.insert(operations)
	if err != nil || !strings.HasPrefix(string(inserted), "before\n"+resultsBegin+"**") ||
		!strings.HasSuffix(string(inserted), resultsEnd+"after\n") || strings.Contains(string(inserted), "old") {
		t.Errorf("%v\n%s", err, inserted)
	}
	page = append(page, inserted...)
	if strings.Contains(string(page), "%!") {
		t.Errorf("the document contains a formatting error:\n%s", page)
	}
	for _, name := range caseNames() {
		if len(r.Tables[name]) == 0 {
			t.Errorf("case %s produced no table", name)
		}
		for _, table := range r.Tables[name] {
			if len(table.rows) < 2 {
				t.Errorf("%s: %d rows, want at least 2", table.title, len(table.rows))
			}
			for _, row := range table.rows {
				if len(row.cells) != len(table.columns) {
					t.Errorf("%s: %s has %d cells for %d columns", table.title, row.name, len(row.cells),
						len(table.columns))
				}
				for i, v := range row.cells {
					if math.IsNaN(v) || v < 0 {
						t.Errorf("%s: %s: %s is %v", table.title, row.name, table.columns[i].name, v)
					}
				}
			}
			if !strings.Contains(string(page), table.Markdown()) {
				t.Errorf("the document lacks the table %q", table.title)
			}
		}
	}
	// With a slot for each warning, and with one that is free again before Lambda's next attempt, both nodes are drained.
	for _, row := range r.Tables[slotsCase][0].rows {
		if n := float64(quick().lambda.nodes); row.cells[0] != n || row.cells[3] != n {
			t.Errorf("%s: %v nodes drained, %v deleted", row.name, row.cells[0], row.cells[3])
		}
	}
	for _, trial := range r.trials {
		incomplete := trial.scenario.guarded && strings.HasPrefix(trial.drainer, "kubectl")
		if drained := int(trial.stats.nodesEmpty) == len(trial.scenario.nodes); drained == incomplete {
			t.Errorf("%s: %s drained %v of %d nodes", trial.title, trial.drainer, trial.stats.nodesEmpty,
				len(trial.scenario.nodes))
		}
		if trial.stats.requests == 0 || math.IsInf(trial.stats.lastCordon, 0) {
			t.Errorf("%s: no records of %s: %+v", trial.title, trial.drainer, trial.stats)
		}
	}
}
