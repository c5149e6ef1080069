package testenv

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestLateIsNotSlow: what is sent every millisecond arrives every millisecond, only later, and not before the
// connection would have been open.
func TestLateIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const by, opened, parcels = 10 * time.Millisecond, 30 * time.Millisecond, 100
		here, near := net.Pipe()
		far, there := net.Pipe()
		began := time.Now()
		go late(far, near, by, began.Add(opened))
		go func() {
			for i := range parcels {
				fmt.Fprintf(here, "%d\n", i)
				time.Sleep(time.Millisecond)
			}
			here.Close()
		}()
		lines := bufio.NewScanner(there)
		for i := range parcels {
			if !lines.Scan() || lines.Text() != fmt.Sprint(i) {
				t.Fatalf("parcel %d: got %q, %v", i, lines.Text(), lines.Err())
			}
			want := max(opened, time.Duration(i)*time.Millisecond+by)
			if at := time.Since(began); at != want {
				t.Fatalf("parcel %d arrived after %s, want %s", i, at, want)
			}
		}
		if lines.Scan() {
			t.Errorf("%q came after the end", lines.Text())
		}
	})
}

// TestProxyAddsARoundTrip to opening a connection and to each question and answer.
func TestProxyAddsARoundTrip(t *testing.T) {
	const roundTrip = 40 * time.Millisecond
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	p, err := StartProxy(echo.Addr().String(), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := c.Write([]byte{byte(n)}); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(c, answer); err != nil || answer[0] != byte(n) {
			t.Fatalf("got %v, %v", answer, err)
		}
		if took, least := time.Since(began), time.Duration(n+2)*roundTrip; took < least || took > least+2*time.Second {
			t.Errorf("answer %d came after %s, want %s", n, took, least)
		}
	}
	if n := p.Answered(); n != 3 {
		t.Errorf("%d bytes were answered, want 3", n)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlives the proxy")
	}
}
