package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
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

// TestHTMLFile: a failure leaves no file, and keeps the one of an earlier run.
func TestHTMLFile(t *testing.T) {
	failed := errors.New("no chart")
	page := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, bad := io.WriteString(w, text)
			return errors.Join(err, bad)
		}
	}
	path := filepath.Join(t.TempDir(), "report.html")
	run := func(path string, page func(io.Writer) error) error {
		h := htmlFile{path: path}
		defer h.discard()
		if err := h.prepare(); err != nil || page == nil {
			return err
		}
		return h.write(page)
	}
	is := func(want string) {
		t.Helper()
		if text, err := os.ReadFile(path); string(text) != want || (want == "") != errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file has %q (%v), want %q", text, err, want)
		}
	}
	if err := run(path, nil); err != nil { // the query failed
		t.Error(err)
	}
	is("")
	if err := run(path, page("half", failed)); !errors.Is(err, failed) {
		t.Error(err)
	}
	is("")
	if err := run(path, page("a long page", nil)); err != nil {
		t.Error(err)
	}
	is("a long page")
	if err := run(path, page("half", failed)); !errors.Is(err, failed) {
		t.Error(err)
	}
	is("a long page")
	if err := run(path, page("short", nil)); err != nil {
		t.Error(err)
	}
	is("short")
	if err := run(filepath.Join(path, "x"), page("", nil)); err == nil {
		t.Error("a file below a file was opened")
	}
	if err := run("", page("", failed)); err != nil {
		t.Error(err)
	}
}
