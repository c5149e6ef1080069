package lambdalocal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain builds the function the tests invoke, once.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "lambdalocal")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		path := filepath.Join(folder, "bootstrap")
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "./testdata/bootstrap")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the test function: %v\n%s", err, out)
			return 1
		}
		os.Setenv("TEST_BOOTSTRAP", path)
		return m.Run()
	}())
}

func testBootstrap() string { return os.Getenv("TEST_BOOTSTRAP") }

// buffer is a log that a test may read while functions write it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testService serves one function, "fn", with what the test wants changed.
func testService(t testing.TB, change func(*Options, *Function)) *Service {
	t.Helper()
	options := Options{Delays: Delays{
		Retries:     [2]time.Duration{2 * time.Millisecond, 4 * time.Millisecond},
		ThrottleMin: time.Millisecond,
		ThrottleMax: 8 * time.Millisecond,
	}}
	fn := Function{Name: "fn", Bootstrap: testBootstrap(), Timeout: 20 * time.Second}
	if change != nil {
		change(&options, &fn)
	}
	options.Functions = append(options.Functions, fn)
	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func invoke(t testing.TB, s *Service, payload string) Result {
	t.Helper()
	r, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(payload))
	if err != nil {
		t.Fatalf("invoking with %s: %v", payload, err)
	}
	return r
}

func enqueue(t testing.TB, s *Service, payload string) string {
	t.Helper()
	r, err := s.Invoke(t.Context(), "fn", Event, []byte(payload))
	if err != nil {
		t.Fatalf("enqueueing %s: %v", payload, err)
	}
	return r.RequestID
}

func drain(t testing.TB, s *Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

type identity struct {
	PID    int
	Count  int
	Folder string
}

func identify(t testing.TB, s *Service) identity {
	t.Helper()
	var who identity
	decode(t, invoke(t, s, `{"do":"identify"}`).Payload, &who)
	return who
}

func decode(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("decoding %s: %v", data, err)
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// eventually waits for what other processes do.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// alive tells whether the process runs; a zombie does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

func (s *Service) environmentCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.environments)
}

func (s *Service) onlyEnvironment(t testing.TB) *environment {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.environments {
		return e
	}
	t.Fatal("no environment")
	return nil
}
