// Package authenticator runs the server of aws-iam-authenticator, unmodified, on loopback and with a local STS. It is a
// program of its own (cmd/authenticator) because the server keeps much of its state in the process and ends it when
// something fails.
package authenticator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/aws-iam-authenticator/pkg/config"
	"sigs.k8s.io/aws-iam-authenticator/pkg/metrics"
	"sigs.k8s.io/aws-iam-authenticator/pkg/server"

	"github.com/castai/kops-spot/test/authenticator/protocol"
)

// address is where the server listens and the API server finds it. A name would have to be looked up.
const address = "127.0.0.1"

// Run runs an authenticator until ctx ends, and calls ready once it takes tokens. What it cannot start with ends the
// process, with the reason on standard error. It may be called once in a process, which should end soon after.
func Run(ctx context.Context, cfg protocol.Config, ready func(protocol.Ready)) error {
	if err := askOnly(cfg.STSAddress, cfg.STSRoots); err != nil {
		return err
	}
	if err := isolate(); err != nil {
		return err
	}
	release := holdHealthPort()
	defer release()
	if cfg.Port == 0 {
		var err error
		if cfg.Port, err = freePort(); err != nil {
			return err
		}
	}
	metrics.InitMetrics(prometheus.NewRegistry())
	settings := serverConfig(cfg)
	s := server.New(ctx, settings)
	ready(protocol.Ready{Port: cfg.Port, Kubeconfig: settings.GenerateKubeconfigPath})

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// It gets no channel to stop by: stopped before its first list of mappings, the CRD's mapper panics.
		s.Run(nil)
	}()
	select {
	case <-ended:
		return errors.New("the server ended by itself")
	case <-ctx.Done():
		s.Close()
		<-ended
		return nil
	}
}

// isolate keeps the server from the AWS settings of whoever runs it, and from asking EC2 for its region, which takes
// seconds where there is no EC2.
func isolate() error {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "AWS_") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	return errors.Join(
		os.Setenv("AWS_CONFIG_FILE", os.DevNull),
		os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull),
		os.Setenv("AWS_EC2_METADATA_DISABLED", "true"),
	)
}

func serverConfig(cfg protocol.Config) config.Config {
	c := config.Config{
		PartitionID:            "aws",
		ClusterID:              cfg.ClusterID,
		Hostname:               address,
		Address:                address,
		HostPort:               cfg.Port,
		StateDir:               cfg.Dir,
		GenerateKubeconfigPath: filepath.Join(cfg.Dir, "webhook.kubeconfig"),
		Kubeconfig:             cfg.Kubeconfig,
		BackendMode:            cfg.Modes,
		// The command's defaults. Nobody asks for {{EC2PrivateDNSName}} here, but the server wants a rate.
		EC2DescribeInstancesQps:   15,
		EC2DescribeInstancesBurst: 5,
	}
	for _, m := range cfg.Mappings {
		if strings.Contains(m.ARN, ":user/") {
			c.UserMappings = append(c.UserMappings, config.UserMapping{UserARN: m.ARN, Username: m.Username, Groups: m.Groups})
		} else {
			c.RoleMappings = append(c.RoleMappings, config.RoleMapping{RoleARN: m.ARN, Username: m.Username, Groups: m.Groups})
		}
	}
	return c
}

// holdHealthPort keeps the server from answering health checks, which it would do on port 21363 of every address of the
// machine: it goes on without if it cannot, and on Linux it cannot while one address has a listener there. If this fails,
// another process has one, the next authenticator for instance, and the server's fails too.
func holdHealthPort() (release func()) {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "21363"))
	if err != nil {
		return func() {}
	}
	return func() { l.Close() }
}

// freePort names a port for a server that opens it itself. It is below those that Linux hands to outgoing connections,
// one of which could take it before the server does, or while the server is restarted.
func freePort() (int, error) {
	const low, high, tries = 20000, 32768, 100
	var err error
	for range tries {
		port := low + rand.IntN(high-low)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("finding a free port from %d to %d: %w", low, high-1, err)
}
