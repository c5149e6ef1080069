package authenticator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// askOnly makes address the STS of the process. The server sends requests to the STS host in a token through
// http.DefaultTransport: every such host resolves to address, with certificates from roots, and no other host resolves.
func askOnly(address, roots string) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(roots)) {
		return errors.New("no certificates given to believe STS by")
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return fmt.Errorf("http.DefaultTransport is a %T", http.DefaultTransport)
	}
	transport.Proxy = nil
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	transport.DialContext = func(ctx context.Context, network, name string) (net.Conn, error) {
		if !strings.HasPrefix(name, "sts.") {
			return nil, fmt.Errorf("%s is not STS", name)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return nil
}
