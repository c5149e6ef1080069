package castai

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// raw starts a server that handles connections itself, numbered from one. Each is closed when handle returns.
func raw(t *testing.T, handle func(n int32, conn net.Conn, in *bufio.Reader)) (url string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n := connections.Add(1)
			go func() {
				defer conn.Close()
				handle(n, conn, bufio.NewReader(conn))
			}()
		}
	}()
	return "http://" + l.Addr().String(), connections
}

// request reads one request. It returns false if there is none.
func request(in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	expect(t, interrupted(t, clientOf(t, "http://"+l.Addr().String())), again,
		"notifying CAST AI that "+providerID+" is interrupted: dial tcp", "refused")
}

// TestBrokenResponses: an error before the status line is worth a retry. After it, the status decides.
func TestBrokenResponses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer string
		reset        bool
		class        class // empty: success
		want         string
	}{
		{"reset before a response", "", true, again, "is interrupted: "},
		{"closed before a response", "", false, again, "EOF"},
		{"closed within the status line", "HTTP/1.1 20", false, again, "is interrupted: "},
		{"closed within the header", "HTTP/1.1 200 OK\r\nContent-Le", false, again, "is interrupted: "},
		{"no HTTP", "SSH-2.0-" + secret + "\r\n\r\n", false, again, "malformed HTTP response"},
		{"an invalid header with the key", "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n", false, again, "[redacted]"},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), false, again,
			"response headers exceeded 65536 bytes"},
		{"a redirect to nowhere", "HTTP/1.1 302 Found\r\nLocation: http://[" + secret + "\r\nContent-Length: 0\r\n\r\n",
			false, again, "[redacted]"},
		{"yes, truncated", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a", false, "", ""},
		{"success, then reset", "HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n", false, "", ""},
		{"success in broken chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false, "", ""},
		{"no, truncated", "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nno such", false, final,
			"it answers 404 (no such)"},
		{"an error truncated within the key", "HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nbad " + secret[:10],
			false, final, "it answers 400 (bad [redacted])"},
		{"perhaps, truncated", "HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\noh", false, again, "it answers 500 (oh)"},
		{"the key in the status line", "HTTP/1.1 500 " + secret + "\r\nContent-Length: 0\r\n\r\n", false, again,
			"it answers 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := raw(t, func(_ int32, conn net.Conn, in *bufio.Reader) {
				if c.reset {
					_, _ = in.ReadByte()
					_ = conn.(*net.TCPConn).SetLinger(0)
					return
				}
				request(in)
				_, _ = io.WriteString(conn, c.answer)
			})
			err := interrupted(t, clientOf(t, url))
			if c.class != "" {
				expect(t, err, c.class, "notifying CAST AI that "+providerID+" is interrupted: ", c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConnectionReuse: a connection is reused, and replaced within the same call if it was closed in the meantime.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	url, connections := raw(t, func(n int32, conn net.Conn, in *bufio.Reader) {
		for answers := 0; request(in) && (n > 1 || answers < 2); answers++ {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}
	})
	c := clientOf(t, url)
	for i, want := range []int32{1, 1, 2, 2} {
		if err := interrupted(t, c); err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
		if connections.Load() != want {
			t.Errorf("after call %d: %d connections, want %d", i+1, connections.Load(), want)
		}
	}
}

func TestUnknownCertificate(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request) {
		t.Error("the key was sent")
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake fails, as intended
	s.StartTLS()
	defer s.Close()
	expect(t, interrupted(t, clientOf(t, s.URL)), final, "its certificate is not trusted: ", "unknown authority",
		"TLS-inspecting proxy")
}

// piped returns a client in a synctest bubble. Its CAST AI reads the request and responds with texts after pauses.
func piped(t *testing.T, wait time.Duration, texts ...string) *Client {
	t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			in := bufio.NewReader(theirs)
			request(in)
			for _, text := range texts {
				time.Sleep(wait)
				_, _ = io.WriteString(theirs, text)
			}
			_, _ = in.ReadByte() // until the client disconnects
		}()
		return ours, nil
	}
	key, _ := inTurn(secret)
	return optioned(t, Options{URL: "http://localhost", Key: key,
		HTTP: &http.Client{Transport: &http.Transport{DialContext: dial}}})
}

// TestSlowResponses: an attempt is limited to 5 s and uses what has arrived by then.
func TestSlowResponses(t *testing.T) {
	t.Parallel()
	ok, no, perhaps := "HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 503 Busy\r\n"
	length := "Content-Length: 3\r\n\r\n"
	for _, c := range []struct {
		name  string
		wait  time.Duration
		texts []string
		took  time.Duration
		class class // empty: success
		want  string
	}{
		{"no response", 0, nil, 5 * time.Second, again, "is interrupted: no response within 5s"},
		{"a slow status line", 6 * time.Second, []string{ok + length}, 5 * time.Second, again, "no response within 5s"},
		{"a slow header", 3 * time.Second, []string{ok, length}, 5 * time.Second, again, "no response within 5s"},
		{"just in time", 2 * time.Second, []string{no, length + "a", "b"}, 5 * time.Second, final,
			"it answers 404 (a)"},
		{"a slow success", 2 * time.Second, []string{ok, length + "a", "bc"}, 4*time.Second + lingerLimit, "", ""},
		{"a slow error", time.Second, []string{no + length + "a", "b", "c"}, 3 * time.Second, final,
			"it answers 404 (abc)"},
		{"a very slow body", 2 * time.Second, []string{perhaps + length + "a", "b", "c"}, 5 * time.Second, again,
			"it answers 503 (ab)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := piped(t, c.wait, c.texts...)
				start := time.Now()
				err := interrupted(t, client)
				if took := time.Since(start); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				if c.class == "" {
					if err != nil {
						t.Error(err)
					}
				} else if expect(t, err, c.class, c.want); errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the caller's deadline had not passed: %v", err)
				}
				client.http.CloseIdleConnections()
				time.Sleep(10 * time.Second) // until the server's side has finished
			})
		})
	}
}

// TestCallerDeadline ends an attempt, too, and the error says whose deadline it was.
func TestCallerDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := piped(t, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		err := c.Notify(ctx, "rebalanceRecommendation", "7a6b", providerID)
		expect(t, err, again, "notifying CAST AI that a rebalance of "+providerID+
			" is recommended: context deadline exceeded")
		if took := time.Since(start); took != 2*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
