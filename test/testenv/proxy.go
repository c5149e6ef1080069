package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is a TCP proxy that adds latency without limiting bandwidth.
type Proxy struct {
	listener net.Listener
	target   string
	oneWay   time.Duration
	ctx      context.Context
	hangUp   context.CancelFunc
	running  sync.WaitGroup
	answered atomic.Int64
}

// StartProxy serves on a free port of 127.0.0.1 and adds roundTrip to each round trip to target, including the TCP
// handshake.
func StartProxy(target string, roundTrip time.Duration) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for a proxy to %s: %w", target, err)
	}
	p := &Proxy{listener: listener, target: target, oneWay: roundTrip / 2}
	p.ctx, p.hangUp = context.WithCancel(context.Background())
	p.running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(near, time.Now()) })
		}
	})
	return p, nil
}

// Addr returns the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Answered returns the number of bytes received from the target so far.
func (p *Proxy) Answered() int64 { return p.answered.Load() }

// Close stops the proxy and closes all its connections.
func (p *Proxy) Close() error {
	p.hangUp()
	err := p.listener.Close()
	p.running.Wait()
	return err
}

func (p *Proxy) serve(near net.Conn, accepted time.Time) {
	far, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		near.Close()
		return
	}
	end := func() { near.Close(); far.Close() }
	defer end()
	defer context.AfterFunc(p.ctx, end)()
	var ways sync.WaitGroup
	// The local handshake took no time. A distant target would have had to answer it before the first byte could be
	// sent.
	ways.Go(func() { late(far, near, p.oneWay, accepted.Add(3*p.oneWay)) })
	ways.Go(func() { late(counted{near, &p.answered}, far, p.oneWay, time.Time{}) })
	ways.Wait()
}

type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p))) // before the other side has seen them and could read the count
	return c.Conn.Write(p)
}

func (c counted) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite closes one direction of a connection, or all of it if it cannot be half-closed: the other direction may
// still have data.
func closeWrite(c io.Closer) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// late copies from src to dst with a delay for each byte, and sends nothing before first.
func late(dst io.WriteCloser, src io.ReadCloser, by time.Duration, first time.Time) {
	type parcel struct {
		data []byte
		due  time.Time
	}
	underWay := make(chan parcel, 4096)
	go func() {
		defer close(underWay)
		for {
			data := make([]byte, 32<<10)
			n, err := src.Read(data)
			due := time.Now().Add(by)
			if due.Before(first) {
				due = first
			}
			if n > 0 {
				underWay <- parcel{data[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range underWay {
		time.Sleep(time.Until(p.due))
		if _, err := dst.Write(p.data); err != nil {
			src.Close()
		}
	}
	closeWrite(dst)
}
