package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/castai/kops-spot/test/demo/story"
)

func TestShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		if err := show(t.Context(), story.NewScreen(&b)); err != nil {
			t.Fatal(err)
		}
		// Drain and replacement run concurrently: each list is ordered on its own.
		for _, lines := range [][]string{
			{`EC2 terminates the Spot instance i-0a95e7d`, `evicted \d pods?: `,
				`eviction of a payments pod refused, will retry \(429\)`, `terminated +0 remaining`,
				`drained: 7 pods moved from ip-172-20-32-31`},
			{`detached the instance`, `i-05b7e4d joined as a Ready node`, `orders-db-0 +Ready +on i-05b7e4d`},
			{`orders-db-0 +terminated`, `orders-db-0 +Pending`, `orders-db-0 +Ready`},
		} {
			rest := b.String()
			for _, line := range lines {
				at := regexp.MustCompile(line).FindStringIndex(rest)
				if at == nil {
					t.Fatalf("%s is missing or out of order in\n%s", line, b.String())
				}
				rest = rest[at[1]:]
			}
		}
	})
}

func TestRunReturnsErrorOfCommand(t *testing.T) {
	if err := run(t.Context(), []string{"true"}); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), []string{"false"}); err == nil || !strings.Contains(err.Error(), `["false"]`) {
		t.Errorf("failing command: got error %v", err)
	}
}

// TestImports keeps the preview small: every import has to be compiled before it can start.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/castai/kops-spot/"
	want := module + "internal/spot\n" + module + "internal/handler\n" + module + "internal/spottest\n" +
		module + "test/demo/story\n" + module + "test/demo/preview\n"
	if string(out) != want {
		t.Errorf("imports\n%s\nwant\n%s", out, want)
	}
}
