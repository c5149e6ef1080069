package castai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/castai/kops-spot/internal/spot"
)

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
