package main

import (
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// TestStatusFacts checks that status shows what the last self-check found, and what costs money or is missing.
func TestStatusFacts(t *testing.T) {
	s := statusResult{Ready: "not-ready", Detached: []detachedInstance{{"i-2", "nodes.prod.example.com", "2026-12-01T09:28:00Z"}},
		ReplacementFailures: map[string]int{"nodes.prod.example.com": 2}, Warnings: []string{"node b is still cordoned"},
		Overdue: []spot.OverdueInstance{{Node: "a", Instance: "i-1", Since: time.Date(2026, 12, 1, 9, 30, 0, 0, time.UTC)}}}
	var rows []string
	for _, f := range s.facts() {
		rows = append(rows, strings.Join(f, " "))
	}
	got := strings.Join(rows, "\n")
	for _, want := range []string{"overdue instance i-1 of node a, deadline 2026-12-01 09:30:00 UTC", "warning node b is still cordoned",
		"detached instance i-2 of group nodes.prod.example.com still runs (interrupted: 2026-12-01T09:28:00Z)",
		"failures group nodes.prod.example.com could not launch a replacement (2×)"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q", got, want)
		}
	}
}
