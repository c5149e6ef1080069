// Package authenticator runs the unmodified server of aws-iam-authenticator on loopback with a local STS. It is a
// separate program (cmd/authenticator) because the server keeps much of its state in the process and exits when
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

// address is the listen address of the server. It needs no DNS lookup.
const address = "127.0.0.1"

// Run runs an authenticator until ctx ends, and calls ready when it accepts tokens. Startup errors exit the process
// with the reason on standard error. Call it once in a process that exits soon afterwards.
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
		// Pass no stop channel: the CRD's mapper panics if it is stopped before its first list of mappings.
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

// isolate protects the server from the user's AWS settings, and from reading its region from EC2, which takes seconds
// outside of EC2.
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
		// The command's defaults. The server requires a rate, although the tests do not use {{EC2PrivateDNSName}}.
		EC2DescribeInstancesQps:   15,
		EC2DescribeInstancesBurst: 5,
	}
	for _, m := range cfg.Mappings {
		if strings.Contains(m.ARN, ":user/") {
			c.UserMappings = append(c.UserMappings,
				config.UserMapping{UserARN: m.ARN, Username: m.Username, Groups: m.Groups})
		} else {
			c.RoleMappings = append(c.RoleMappings,
				config.RoleMapping{RoleARN: m.ARN, Username: m.Username, Groups: m.Groups})
		}
	}
	return c
}

// holdHealthPort keeps the server from serving health checks on port 21363 of every address. The server continues if
// the port is in use, which on Linux is the case if one address has a listener. If this fails, another process has the
// port, such as the next authenticator, and the server cannot use it either.
func holdHealthPort() (release func()) {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "21363"))
	if err != nil {
		return func() {}
	}
	return func() { l.Close() }
}

// freePort returns a port for a server that opens it itself. It is below the ports that Linux uses for outgoing
// connections, which could take it before the server does or while the server restarts.
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
