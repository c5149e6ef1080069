package operator

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/castai/kops-spot/test/testenv"
)

// breaker breaks the connection at one write and all later requests, either before the server receives the write or
// after it responded.
type breaker struct {
	next     http.RoundTripper
	at       int32
	answered bool
	writes   atomic.Int32
	broken   atomic.Bool
}

func (b *breaker) RoundTrip(r *http.Request) (*http.Response, error) {
	gone := errors.New("the network is gone")
	if b.broken.Load() {
		return nil, gone
	}
	if r.Method == http.MethodGet || b.writes.Add(1) != b.at {
		return b.next.RoundTrip(r)
	}
	b.broken.Store(true)
	if b.answered {
		answer, err := b.next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		answer.Body.Close()
	}
	return nil, gone
}

// interruptMapping applies a plan until its nth write and reports whether there was one. Each row that changes
// something is one write: the error names the nth row, and the rows before it are done.
func interruptMapping(t *testing.T, remove bool, n int32, answered bool) bool {
	t.Helper()
	b := &breaker{at: n, answered: answered}
	cfg := cp().AdminConfig()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		b.next = next
		return b
	})
	admin := must(identitymap.NewClient(cfg))
	p := plan(t, mapping, remove)
	all := rows(p)
	err := applyAs(t.Context(), admin, p)
	switch {
	case !b.broken.Load() && (err != nil || int(b.writes.Load()) != len(all)):
		t.Fatalf("%v: %d writes for the rows\n%q", err, b.writes.Load(), all)
	case !b.broken.Load():
		return false
	case err == nil || !strings.HasPrefix(err.Error(), all[n-1]+": "):
		t.Errorf("interrupted at write %d: %v; want an error about %s", n, err, all[n-1])
	}
	left := all[n-1:]
	if answered {
		left = all[n:]
	}
	if is := rows(plan(t, mapping, remove)); !slices.Equal(is, left) {
		t.Errorf("interrupted at write %d: remaining rows\n%q\nwant\n%q", n, is, left)
	}
	return true
}

// mappingInterrupted: whichever write a run ends at, the next one completes it; also for a removal.
func mappingInterrupted(t *testing.T) {
	try(cp().Apply(t.Context(), []byte(testenv.MappingsCRD)))
	for _, mode := range []string{"", testenv.EKSConfigMap, testenv.CRD, testenv.MountedFile} {
		t.Run("mode "+mode, func(t *testing.T) {
			before := map[string]map[string]string{"aws-auth": {"mapUsers": theirUsers}, daemonName: {"config.yaml": theirFile}}
			for name, texts := range before {
				setUp(t, name, texts)
			}
			if mode != "" {
				createDaemonSet(t, mode)
			}
			apply(t, plan(t, mapping, false))
			want := contents(t)
			apply(t, plan(t, mapping, true))
			// The connection breaks before the server has the write, and after it for the removal; in the other modes,
			// which share most writes, the other way round.
			answered := mode == testenv.EKSConfigMap || mode == ""
			writes := 0
			for n := int32(1); interruptMapping(t, false, n, answered); n++ {
				writes++
				apply(t, plan(t, mapping, false))
				if got := contents(t); !maps.EqualFunc(got, want, maps.Equal) {
					t.Errorf("interrupted at write %d: got\n%q\nwant\n%q", n, got, want)
				}
				if p := plan(t, mapping, false); !p.Changes.Empty() {
					t.Errorf("interrupted at write %d: remaining rows %v", n, p.Changes)
				}
				interruptMapping(t, true, n, !answered)
				apply(t, plan(t, mapping, true))
				if got := contents(t); !maps.EqualFunc(got, before, func(is, was map[string]string) bool { return sameTexts(t, is, was) }) {
					t.Errorf("removal interrupted at write %d: got\n%q\nwant\n%q", n, got, before)
				}
			}
			if writes < 4 {
				t.Errorf("only %d interruptions", writes)
			}
			apply(t, plan(t, mapping, true))
			checkGone(t)
		})
	}
}

// contents returns the data of both ConfigMaps.
func contents(t *testing.T) map[string]map[string]string {
	t.Helper()
	return map[string]map[string]string{"aws-auth": data(t, "aws-auth"), daemonName: data(t, daemonName)}
}

// extraGroups: additional groups of a mapping, such as system:masters, are kept and reported in the plan and the check.
func extraGroups(t *testing.T) {
	entry := fmt.Sprintf("- rolearn: arn:aws:iam::%s:role/CastLambdaRoleForSpot\n  username: boss\n  groups: [system:masters]\n", account)
	startDaemon(t)
	setUp(t, "aws-auth", map[string]string{"mapRoles": entry})
	authenticator(t, testenv.EKSConfigMap)
	p := plan(t, mapping, false)
	if said := fmt.Sprint(p.Changes); !strings.Contains(said, "{leave IAM role "+roleIdentity.ARN+" somebody else has added system:masters") {
		t.Errorf("plan: %s", said)
	}
	apply(t, p)
	becomes(t, logIn(function), "boss", "system:masters", identitymap.HandlerGroup)
	apply(t, plan(t, mapping, true))
	if is := data(t, "aws-auth"); !sameTexts(t, is, map[string]string{"mapRoles": entry}) {
		t.Errorf("the entry changed to %q", is["mapRoles"])
	}
}
