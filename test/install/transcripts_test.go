package install

import "testing"

func transcripts(t *testing.T) {
	for _, args := range [][]string{{"check"}, {"status"}} {
		stdout, stderr := must(t, args...)
		t.Logf("%v\n%s%s", args, stderr, stdout)
	}
}
