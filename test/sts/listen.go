package sts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// Endpoint is where a server listens, on loopback.
type Endpoint struct {
	URL        string // plain HTTP, for AWS_ENDPOINT_URL_STS
	TLSAddress string // host:port, for whoever takes it for sts.amazonaws.com or a region's sts.<region>.amazonaws.com
	CA         []byte // PEM: who signed the certificates for those names

	server *http.Server
}

// Listen serves in plain HTTP and in TLS until Close.
func (s *Server) Listen() (*Endpoint, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	encrypted, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: authority.certificate})
	if err != nil {
		plain.Close()
		return nil, err
	}
	e := &Endpoint{
		URL:        "http://" + plain.Addr().String(),
		TLSAddress: encrypted.Addr().String(),
		CA:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.cert.Raw}),
		server: &http.Server{
			Handler: s,
			// A client that goes away while it connects is no news.
			ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	go e.server.Serve(plain)
	go e.server.Serve(encrypted)
	return e, nil
}

// Close ends both listeners and their connections.
func (e *Endpoint) Close() error { return e.server.Close() }

// authority signs a certificate for any name of STS that a client asks for.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := template("kops-spot test STS")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key}, err
}

func (a *authority) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !strings.HasPrefix(hello.ServerName, "sts.") {
		return nil, fmt.Errorf("%q is no name of STS", hello.ServerName)
	}
	leaf := template(hello.ServerName)
	leaf.DNSNames = []string{hello.ServerName}
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}
