package main

import (
	"testing"
	"time"
)

func TestLookback(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]struct {
		is    time.Duration
		shown string
	}{"30d": {30 * day, "30d"}, "720h": {30 * day, "30d"}, "24h0m0s": {day, "1d"}, "90m": {90 * time.Minute, "1h30m0s"}, "0d": {0, "0s"}} {
		var l lookback
		if err := l.Set(text); err != nil || time.Duration(l) != want.is || l.String() != want.shown {
			t.Errorf("%s: got %s, %s, %v; want %s", text, time.Duration(l), &l, err, want.shown)
		}
		now := time.Now()
		if start, err := l.start(now); (err == nil) != (want.is > 0) || !start.Equal(now.Add(-want.is)) {
			t.Errorf("%s: got %s, %v", text, start, err)
		}
	}
	for _, text := range []string{"", "d", "1.5d", "-1d", "70000d", "30", "1w"} {
		if err := new(lookback).Set(text); err == nil || err.Error() != "use a duration such as 12h or 30d" {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
