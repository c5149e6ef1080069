package change

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

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

// TestApply: a failure stops what depends on it, and nothing else. All failures are reported.
func TestApply(t *testing.T) {
	lost := &url.Error{Op: "Post", URL: "https://x", Err: errors.New("EOF")}
	for name, c := range map[string]struct {
		fails map[string]error
		done  string
		err   string
	}{
		"none":               {nil, "key user binding role role-policy policy secret end", ""},
		"a part":             {map[string]error{"key": errors.New("no")}, "binding role role-policy policy secret", "delete X key: no"},
		"two":                {map[string]error{"user": errors.New("no"), "secret": errors.New("never")}, "key binding role role-policy policy", "delete X user: no\ndelete X secret: never"},
		"what others need":   {map[string]error{"binding": errors.New("no")}, "key user secret", "delete X binding: no"},
		"the connection":     {map[string]error{"user": lost}, "key", "delete X user: Post \"https://x\": EOF"},
		"the last":           {map[string]error{"end": errors.New("no")}, "key user binding role role-policy policy secret", "delete X end: no"},
		"an interrupted run": {map[string]error{"key": context.Canceled}, "", "delete X key: context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var done []string
			step := func(name string) Step[string] {
				return Step[string]{Change: Change{Verb: Delete, Kind: "X", Name: name}, Write: func(context.Context, string) error {
					if err := c.fails[name]; err != nil {
						if errors.Is(err, context.Canceled) {
							cancel()
						}
						return err
					}
					done = append(done, name)
					return nil
				}}
			}
			steps := Of([]Step[string]{step("key"), step("user")}, "user")
			steps = append(steps, Of([]Step[string]{step("binding"), {Change: Change{Verb: Keep}}}, "cluster")...)
			steps = append(steps, Of([]Step[string]{step("role"), step("role-policy")}, "role", "cluster")...)
			steps = append(steps, Of([]Step[string]{step("policy")}, "policy", "role")...)
			steps = append(steps, Of([]Step[string]{step("secret")}, "secret")...)
			steps = append(steps, step("end"))
			err := Apply(ctx, "by", steps)
			if got := strings.Join(done, " "); got != c.done || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("%s, %v; want %s, %s", got, err, c.done, c.err)
			}
		})
	}
}

// TestSettle plans again until nothing is left, an error, the limit or the end of the context.
func TestSettle(t *testing.T) {
	left, failed := Plan{{Verb: Create}}, errors.New("denied")
	for name, c := range map[string]struct {
		plans []Plan // the last one repeats
		err   error
		limit time.Duration // of the context
		took  time.Duration
		empty bool
	}{
		"at once":      {plans: []Plan{nil}, limit: time.Hour, empty: true},
		"later":        {plans: []Plan{left, left, nil}, limit: time.Hour, took: 2 * settlePoll, empty: true},
		"never":        {plans: []Plan{left}, limit: time.Hour, took: settleLimit},
		"an error":     {plans: []Plan{left}, err: failed, limit: time.Hour},
		"interruption": {plans: []Plan{left}, limit: 3 * time.Second, took: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.limit)
				defer cancel()
				began, n := time.Now(), 0
				p, err := Settle(ctx, func(context.Context) (Plan, error) {
					n++
					return c.plans[min(n, len(c.plans))-1], c.err
				})
				if !errors.Is(err, c.err) || p.Empty() != c.empty || time.Since(began) != c.took {
					t.Errorf("%v, %v after %s", p, err, time.Since(began))
				}
			})
		})
	}
}
