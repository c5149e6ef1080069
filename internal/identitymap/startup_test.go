package identitymap

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// TestCheckFile: test/authenticator compares the same files with the authenticator itself.
func TestCheckFile(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/startup.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			flags, want := map[string][]string{}, ""
			for line := range strings.Lines(string(f.Data)) {
				if text, is := strings.CutPrefix(line, "# flags: "); is {
					name, value, _ := strings.Cut(strings.TrimSpace(text), "=")
					flags[name] = []string{value}
				} else if text, is := strings.CutPrefix(line, "# want: "); is {
					want = strings.TrimSpace(text)
				}
			}
			err := CheckFile(string(f.Data), flags)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
