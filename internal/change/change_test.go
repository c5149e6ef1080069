package change

import "testing"

// TestCommand: a shell reads the words as they are.
func TestCommand(t *testing.T) {
	for want, words := range map[string][]string{
		"aws iam get-user --user-name a.b+c=d,e@f": {"aws", "iam", "get-user", "--user-name", "a.b+c=d,e@f"},
		`aws '' 'a b' '$(x)' '~' 'it'\''s'`:        {"aws", "", "a b", "$(x)", "~", "it's"},
	} {
		if got := Command(words...); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
