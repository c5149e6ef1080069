package app

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// duration is a setting that is a length of time.
func duration(name string, of func(*spot.Policy) *time.Duration, least, most time.Duration, because, meaning, why string) Setting {
	p := spot.DefaultPolicy("")
	return Setting{Name: name, Default: short(*of(&p)), Meaning: meaning, Why: why,
		Values: fmt.Sprintf("a duration from %s to %s (%s)", short(least), short(most), because),
		read: func(c *Config, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil || d < least || d > most {
				return notThis(value)
			}
			*of(&c.Policy) = d
			return nil
		}}
}

// short is a duration without the zeros that Go writes behind it.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// choice is a setting that is one of several words.
func choice[T ~string](name string, of func(*Config) *T, words []T, meaning, why string) Setting {
	c := Config{Policy: spot.DefaultPolicy("")}
	return Setting{Name: name, Default: string(*of(&c)), Values: oneOf(words), Meaning: meaning, Why: why,
		read: func(c *Config, value string) error {
			if !slices.Contains(words, T(value)) {
				return notThis(value)
			}
			*of(c) = T(value)
			return nil
		}}
}

// oneOf are words as a sentence lists them.
func oneOf[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "`" + string(w) + "`"
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// notThis is the error of a value that is none of those that a setting may have.
func notThis(value string) error { return fmt.Errorf("not %q", value) }

// hookName is what Auto Scaling lets a lifecycle hook be called.
var hookName = regexp.MustCompile(`^[A-Za-z0-9_/-]{1,255}$`)

// readHooks reads the names of hooks, separated by commas, each of which is to be named once.
func readHooks(c *Config, value string) error {
	names := strings.Split(value, ",")
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		switch {
		case names[i] == "":
			return errors.New("with a name between any two commas")
		case slices.Contains(names[:i], names[i]):
			return fmt.Errorf("and %q once only", names[i])
		case !hookName.MatchString(names[i]):
			return notThis(names[i])
		}
	}
	c.Policy.Hooks = names
	return nil
}
