package controlplane

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
)

// listenLoopback listens on the port of 127.0.0.1, or for port 0 on a free one below 32768. Linux uses the ports from
// there for outgoing connections, which could take a free port before its server opens it.
func listenLoopback(port int) (net.Listener, error) {
	if port != 0 {
		return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	const low, high, tries = 20000, 32768, 100
	var err error
	for range tries {
		var l net.Listener
		if l, err = listenLoopback(low + rand.IntN(high-low)); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("finding a free port from %d to %d: %w", low, high-1, err)
}

// freePort returns a port for a server that opens it itself.
func freePort() (int, error) {
	l, err := listenLoopback(0)
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func loopbackURL(port int) url.URL {
	return url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
}
