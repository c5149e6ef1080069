package app

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// duration returns a setting with a duration.
func duration(name string, of func(*spot.Policy) *time.Duration, least, most time.Duration, because, meaning, why string) Setting {
	p := spot.DefaultPolicy("")
	return Setting{Name: name, Default: formatDuration(*of(&p)), Meaning: meaning, Why: why,
		Values: fmt.Sprintf("a duration from %s to %s (%s)", formatDuration(least), formatDuration(most), because),
		read: func(c *Config, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil || d < least || d > most {
				return invalidValue(value)
			}
			*of(&c.Policy) = d
			return nil
		}}
}

// formatDuration formats a duration without a trailing 0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// choice returns a setting with fixed values.
func choice[T ~string](name string, of func(*Config) *T, words []T, meaning, why string) Setting {
	c := Config{Policy: spot.DefaultPolicy("")}
	return Setting{Name: name, Default: string(*of(&c)), Values: joinOr(words), Meaning: meaning, Why: why,
		read: func(c *Config, value string) error {
			if !slices.Contains(words, T(value)) {
				return invalidValue(value)
			}
			*of(c) = T(value)
			return nil
		}}
}

// joinOr joins words as in "`a`, `b` or `c`".
func joinOr[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "`" + string(w) + "`"
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// invalidValue is the error for a value that a setting does not allow.
func invalidValue(value string) error { return fmt.Errorf("not %q", value) }

// hookName matches valid names of lifecycle hooks.
var hookName = regexp.MustCompile(`^[A-Za-z0-9_/-]{1,255}$`)

// readHooks reads names of hooks, separated by commas. It ignores empty names: CloudFormation cannot reject them.
func readHooks(c *Config, value string) error {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			continue
		case slices.Contains(names, name):
			return fmt.Errorf("naming %q only once", name)
		case !hookName.MatchString(name):
			return invalidValue(name)
		}
		names = append(names, name)
	}
	c.Policy.Hooks = names
	return nil
}
