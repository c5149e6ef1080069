package castai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/castai/kops-spot/internal/spot"
)

// key is the API key: a text that somebody else keeps, and may replace while the function lives.
type key struct {
	read func(context.Context) (string, error)

	mu    sync.Mutex
	value string
}

// current is the key to send. refused, if not empty, is one that was not accepted: the key is read again, unless it has
// been since.
func (k *key) current(ctx context.Context, refused string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value != refused {
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
		return "", spot.Permanent(errors.New(doing + ": it is empty: put there a key made in CAST AI's console"))
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", spot.Permanent(errors.New(doing + ": there is a space or another character in it that no key has: put there the key and nothing else"))
	}
	k.value = value
	return value, nil
}
