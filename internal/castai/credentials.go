package castai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// giveLimit bounds one of giveTries attempts; givePause is the delay between them.
const (
	giveLimit = 15 * time.Second
	giveTries = 3
	givePause = time.Second
)

// ErrRefused means that CAST AI has definitely not accepted the credentials.
var ErrRefused = errors.New("they are refused")

// Giving configures how to send cloud credentials to CAST AI.
type Giving struct {
	URL       string // of the cluster's credentials, from the console
	Token     string // an API access key
	UserAgent string
	HTTP      *http.Client // nil for a default client; redirects are never followed
}

// Check validates the settings without a request and repeats no value.
func (g Giving) Check() error {
	var errs []error
	if strings.TrimSpace(g.Token) == "" || strings.ContainsFunc(g.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		errs = append(errs, errors.New("the API access key of CAST AI is empty or holds what no key does: make one in the console"))
	}
	return errors.Join(append(errs, checkURL(g.URL))...)
}

// Give sends the credentials, a JSON text, to CAST AI. It retries transient errors, because the request is idempotent.
// No error contains the credentials or the token.
func (g Giving) Give(ctx context.Context, credentials []byte) error {
	const doing = "handing the access key to CAST AI"
	if err := g.Check(); err != nil {
		return fmt.Errorf("%s: %w: %w", doing, ErrRefused, err)
	}
	body, err := json.Marshal(map[string]string{"credentials": string(credentials)})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	client := http.Client{Transport: transport()}
	if g.HTTP != nil {
		client = *g.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for try := 1; ; try++ {
		code, err := g.post(ctx, &client, body)
		switch {
		case err == nil && success(code):
			return nil
		case err == nil && !isTransient(code):
			return fmt.Errorf("%s: %w: it answers %d: %s", doing, ErrRefused, code, adviceOf(code))
		case err == nil:
			err = fmt.Errorf("it answers %d", code)
		}
		if try == giveTries {
			return fmt.Errorf("%s: %w", doing, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		case <-time.After(givePause):
		}
	}
}

// post makes one attempt. Errors do not repeat the response, which may quote the request.
func (g Giving) post(ctx context.Context, client *http.Client, body []byte) (code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, giveLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("its URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", g.UserAgent)
	req.Header.Set("X-API-Key", g.Token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, transportError(err, g.Token)
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func adviceOf(code int) string {
	switch {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return "make a new API access key in the console, with full access, and set CASTAI_API_TOKEN to it"
	case code == http.StatusNotFound || code >= 300 && code < 400:
		return "take CASTAI_API_URL from the console's page for this cluster"
	}
	return "take CASTAI_API_URL and CASTAI_API_TOKEN from the console's page for this cluster"
}

// key is the API key, which may be replaced at any time.
type key struct {
	read func(context.Context) (string, error)

	mu    sync.Mutex
	value string
}

// current returns the key. It reads the key again if the current one is rejected.
func (k *key) current(ctx context.Context, rejected string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value != rejected {
		return k.value, nil
	}
	const doing = "reading the API key of CAST AI"
	value, err := k.read(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	value = strings.TrimSpace(value)
	switch {
	case value == "":
		return "", spot.Permanent(errors.New(doing + ": it is empty: create a key in CAST AI's console and store it there"))
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", spot.Permanent(errors.New(doing + ": it contains white space or another invalid character: store the key only"))
	}
	k.value = value
	return value, nil
}
