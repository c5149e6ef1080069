package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// The control plane's own users. They are in system:masters, because their RBAC roles are not under test, and the audit
// log leaves them out.
const (
	controllersUser = "system:kube-controller-manager"
	schedulerUser   = "system:kube-scheduler"
	kubeletUser     = "system:fake-kubelet"
	attacherUser    = "system:fake-csi-attacher"
)

// credentials are the keys of one control plane. They are valid for a day and unknown to other clusters.
type credentials struct {
	caPEM             []byte
	servingCertFile   string
	servingKeyFile    string
	serviceAccountKey *ecdsa.PrivateKey
	serviceKeyFile    string
	tokensFile        string
	tokens            map[string]string // user -> bearer token
}

// newCredentials creates credentials and writes the files for the API server into dir.
func newCredentials(dir string) (*credentials, error) {
	c := &credentials{
		servingCertFile: filepath.Join(dir, "apiserver.crt"),
		servingKeyFile:  filepath.Join(dir, "apiserver.key"),
		serviceKeyFile:  filepath.Join(dir, "service-account.key"),
		tokensFile:      filepath.Join(dir, "tokens.csv"),
		tokens:          map[string]string{},
	}
	if err := c.newServingCertificate(); err != nil {
		return nil, fmt.Errorf("making the serving certificate: %w", err)
	}
	var err error
	if c.serviceAccountKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("making the service account key: %w", err)
	}
	if err := writeKey(c.serviceKeyFile, c.serviceAccountKey); err != nil {
		return nil, fmt.Errorf("writing the service account key: %w", err)
	}
	var csv strings.Builder
	for _, user := range []string{protocol.AdminUser, controllersUser, schedulerUser, kubeletUser, attacherUser} {
		c.tokens[user] = rand.Text()
		fmt.Fprintf(&csv, "%s,%s,%s,\"system:masters\"\n", c.tokens[user], user, user)
	}
	if err := os.WriteFile(c.tokensFile, []byte(csv.String()), 0o600); err != nil {
		return nil, fmt.Errorf("writing tokens: %w", err)
	}
	return c, nil
}

// newServingCertificate creates an authority and a certificate for loopback signed by it. They are separate, as in a
// real cluster, for clients that check the authority.
func (c *credentials) newServingCertificate() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kubernetes-ca"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	c.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	chain := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), c.caPEM...)
	if err := os.WriteFile(c.servingCertFile, chain, 0o600); err != nil {
		return err
	}
	return writeKey(c.servingKeyFile, key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// client returns the configuration of a user without a client-side rate limit: client-go's five requests a second would
// triple the startup time.
func (c *credentials) client(user, server string) *restclient.Config {
	return &restclient.Config{
		Host:            server,
		BearerToken:     c.tokens[user],
		UserAgent:       user,
		TLSClientConfig: restclient.TLSClientConfig{CAData: c.caPEM},
		QPS:             -1,
	}
}

// writeKubeconfig writes the administrator's kubeconfig.
func (c *credentials) writeKubeconfig(file, server string) error {
	const name = "test"
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.caPEM}
	cfg.AuthInfos[protocol.AdminUser] = &clientcmdapi.AuthInfo{Token: c.tokens[protocol.AdminUser]}
	cfg.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: protocol.AdminUser}
	cfg.CurrentContext = name
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
