package castai

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	dialLimit = 3 * time.Second

	// pingAfter and pingLimit detect a dead connection within one attempt.
	pingAfter = time.Second
	pingLimit = 2 * time.Second
)

func transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    dialLimit,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: bodyLimit,
	}
}

// transportError returns the cause of a failed request as an excerpt: net/http quotes what it could not parse, which may
// contain the key.
func transportError(err error, key string) error {
	cause := err
	var of *url.Error
	if errors.As(err, &of) {
		cause = of.Err
	}
	said := excerpt(cause.Error(), false, key)
	if isCertificate(err) {
		return spot.Permanent(fmt.Errorf("its certificate is not trusted: %s; "+
			"exclude CAST AI's API from any TLS-inspecting proxy, and check the clock", said))
	}
	return errors.New(said)
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}
