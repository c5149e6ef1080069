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
		// The halves of the work go on side by side: each has an order of its own.
		for _, lines := range [][]string{
			{`EC2 terminates the Spot instance i-0a95e7d`, `told \d pods? to end`, `may not evict a pod of payments yet \(429\)`, `left +0 to go`,
				`drained: 7 pods left ip-172-20-32-31`},
			{`detached the instance`, `i-05b7e4d is a Ready node`, `orders-db-0 +Ready  on i-05b7e4d`},
			{`orders-db-0 +left`, `orders-db-0 +waits`, `orders-db-0 +Ready`},
		} {
			rest := b.String()
			for _, line := range lines {
				at := regexp.MustCompile(line).FindStringIndex(rest)
				if at == nil {
					t.Fatalf("%s is not shown, or not in its place, in\n%s", line, b.String())
				}
				rest = rest[at[1]:]
			}
		}
	})
}

func TestTheCommandsEndIsThePreviews(t *testing.T) {
	if err := run(t.Context(), []string{"true"}); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), []string{"false"}); err == nil || !strings.Contains(err.Error(), `["false"]`) {
		t.Errorf("a command that fails: %v", err)
	}
}

// TestItIsSmall: whatever else the preview imported would have to be compiled before it.
func TestItIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/castai/kops-spot/"
	want := module + "internal/spot\n" + module + "internal/spottest\n" + module + "test/demo/story\n" + module + "test/demo/preview\n"
	if string(out) != want {
		t.Errorf("it imports\n%s\nand not only\n%s", out, want)
	}
}
