package testenv

import (
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
				here.Write([]byte{byte(i)})
				time.Sleep(time.Millisecond)
			}
			here.Close()
		}()
		got := make([]byte, 1)
		for i := range parcels {
			if _, err := io.ReadFull(there, got); err != nil || got[0] != byte(i) {
				t.Fatalf("parcel %d: got %v, %v", i, got, err)
			}
			want := max(opened, time.Duration(i)*time.Millisecond+by)
			if at := time.Since(began); at != want {
				t.Fatalf("parcel %d arrived after %s, want %s", i, at, want)
			}
		}
		if _, err := there.Read(got); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestProxyAddsARoundTrip to opening a connection, and to a question and its answer.
func TestProxyAddsARoundTrip(t *testing.T) {
	const roundTrip = 40 * time.Millisecond
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		c, err := echo.Accept()
		if err == nil {
			io.Copy(c, c)
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
	answer := ""
	fmt.Fprintln(c, "question")
	if _, err := fmt.Fscanln(c, &answer); err != nil || answer != "question" ||
		p.Answered() != int64(len("question\n")) {
		t.Errorf("got %q, %v, and %d bytes in all", answer, err, p.Answered())
	}
	if took := time.Since(began); took < 2*roundTrip || took > 2*roundTrip+2*time.Second {
		t.Errorf("the answer came after %s, want %s", took, 2*roundTrip)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlives the proxy")
	}
}
