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
	// dialLimit bounds the opening of one connection.
	dialLimit = 3 * time.Second

	// pingAfter and pingLimit find a connection dead that nothing comes from any more, within one attempt.
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

// unanswered says why there was no answer. It repeats the cause as an excerpt: net/http quotes what it could not read, and
// that may be the key.
func unanswered(err error, key string) error {
	cause := err
	var of *url.Error
	if errors.As(err, &of) {
		cause = of.Err // without the URL: what was being done is said already
	}
	said := excerpt(cause.Error(), false, key)
	if isCertificate(err) {
		return spot.Permanent(fmt.Errorf("its certificate is not accepted: %s; "+
			"if a proxy stands between, let it pass CAST AI's API through, and set the clock right", said))
	}
	return errors.New(said)
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}
