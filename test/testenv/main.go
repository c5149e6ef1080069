package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

var started struct {
	sync.Mutex
	stops []func() error
}

// Once returns a function that starts a shared resource at its first call. Main stops the resource. A failed start
// exits the process. stop may be nil.
func Once[T any](start func(context.Context) (T, error), stop func(T) error) func() T {
	return sync.OnceValue(func() T {
		v, err := start(context.Background())
		if err != nil {
			exit(1, fmt.Errorf("setting up the tests: %w", err))
		}
		if stop != nil {
			started.Lock()
			defer started.Unlock()
			started.stops = append(started.stops, func() error { return stop(v) })
		}
		return v
	})
}

// Main implements TestMain: it runs the tests, calls check (may be nil) if they passed, stops what Once started and
// exits.
func Main(m interface{ Run() int }, check func() error) {
	code := m.Run()
	var err error
	if code == 0 && check != nil {
		err = check()
	}
	exit(code, err)
}

func exit(code int, err error) {
	started.Lock()
	for _, stop := range slices.Backward(started.stops) {
		err = errors.Join(err, stop())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
