package castai

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

// accepting responds with refusal to every key but one.
func accepting(key string, refusal int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); len(body) == 0 && r.Method == http.MethodPost {
			http.Error(w, "the body is missing", http.StatusBadRequest)
		} else if r.Header.Get("X-API-Key") != key {
			http.Error(w, "not with "+r.Header.Get("X-API-Key"), refusal)
		}
	}
}

// TestReplacedKey: a call that is refused with the old key succeeds with the new one.
func TestReplacedKey(t *testing.T) {
	for _, refusal := range []int{401, 403} {
		url, asked := serve(t, accepting("new", refusal))
		key, read := inTurn("old", "new")
		c := optioned(t, Options{URL: url, Key: key})
		for range 3 {
			if err := interrupted(t, c); err != nil {
				t.Fatal(err)
			}
		}
		if asked.Load() != 4 || read.Load() != 2 {
			t.Errorf("%d: %d requests and %d reads of the key for three events and one new key", refusal, asked.Load(),
				read.Load())
		}
	}
}

// TestRefusedKey is sent once in each call and read again in the next, because it may have changed.
func TestRefusedKey(t *testing.T) {
	for refusal, want := range map[int]string{
		401: "it answers 401 (not with [redacted]): the API key is not valid: create a new one in CAST AI's console",
		403: "it answers 403 (not with [redacted]): the API key is not authorized: use a key with full access, of the organization that cluster " + clusterID,
	} {
		url, asked := serve(t, accepting("another", refusal))
		key, read := inTurn(secret)
		c := optioned(t, Options{URL: url, Key: key})
		for n := int32(1); n <= 3; n++ {
			expect(t, interrupted(t, c), final, "notifying CAST AI that "+providerID+" is interrupted", want)
			if asked.Load() != n || read.Load() != n+1 {
				t.Errorf("after call %d: %d requests and %d reads of the key", n, asked.Load(), read.Load())
			}
		}
		expect(t, c.Verify(t.Context()), final, "reading the cluster from CAST AI: "+want)
	}
}

// TestTwoRefusedKeys: a refused new key ends the call and does not appear in the error either.
func TestTwoRefusedKeys(t *testing.T) {
	url, asked := serve(t, accepting("another", 401))
	key, _ := inTurn("old", secret, "third")
	expect(t, interrupted(t, optioned(t, Options{URL: url, Key: key})), final, "401 (not with [redacted])")
	if asked.Load() != 2 {
		t.Errorf("%d requests", asked.Load())
	}
}

func TestInvalidKeys(t *testing.T) {
	url, asked := serve(t, func(http.ResponseWriter, *http.Request) {})
	for name, c := range map[string]struct{ key, want string }{
		"empty":             {" \n", "it is empty"},
		"two lines":         {secret + "\n" + secret, "another invalid character"},
		"two words":         {secret + " " + secret, "another invalid character"},
		"a control":         {secret + "\x00" + secret, "another invalid character"},
		"a byte order mark": {"\ufeff" + secret, "another invalid character"},
		"delete":            {secret + "\x7f" + secret, "another invalid character"},
		"not UTF-8":         {secret + "\xff" + secret, "another invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			key, _ := inTurn(c.key)
			expect(t, interrupted(t, optioned(t, Options{URL: url, Key: key})), final, providerID,
				"reading the API key of CAST AI: ", c.want)
		})
	}
	if asked.Load() != 0 {
		t.Error("CAST AI got a request without a key")
	}
}

// TestUnreadableKey: the reader's error decides whether it is permanent. A later successful read is used.
func TestUnreadableKey(t *testing.T) {
	url, _ := serve(t, accepting(secret, 401))
	var says error
	c := optioned(t, Options{URL: url, Key: func(context.Context) (string, error) { return secret, says }})
	says = errors.New("Throttling")
	expect(t, interrupted(t, c), again, "is interrupted: reading the API key of CAST AI: Throttling")
	says = spot.Permanent(errors.New("denied"))
	expect(t, interrupted(t, c), final, "is interrupted: reading the API key of CAST AI: denied")
	if says = nil; interrupted(t, c) != nil {
		t.Error("the key was not read again")
	}

	// Later it is refused and cannot be read again.
	url, _ = serve(t, accepting("another", 401))
	first := true
	c = optioned(t, Options{URL: url, Key: func(context.Context) (string, error) {
		defer func() { first = false }()
		if first {
			return secret, nil
		}
		return "", errors.New("Throttling")
	}})
	expect(t, interrupted(t, c), final, "the API key is not valid",
		"; and reading the API key of CAST AI: Throttling")
}

// TestConcurrentCalls read the key once, and a new key once.
func TestConcurrentCalls(t *testing.T) {
	url, _ := serve(t, accepting("new", 401))
	key, read := inTurn("old", "new")
	c := optioned(t, Options{URL: url, Key: key})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := c.Notify(t.Context(), "interrupted", "", providerID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if read.Load() != 2 {
		t.Errorf("the key was read %d times", read.Load())
	}
}
