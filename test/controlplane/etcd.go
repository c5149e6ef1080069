package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd runs one etcd member on loopback, with its data in dir and its log in logFile. It never calls fsync, which
// is most of the work of a small etcd, because the data is not needed after a crash. stop waits up to two seconds.
func startEtcd(ctx context.Context, dir, logFile string) (endpoint string, stop func(), err error) {
	client, err := freePort()
	if err != nil {
		return "", nil, fmt.Errorf("starting etcd: %w", err)
	}
	peer, err := freePort()
	if err != nil {
		return "", nil, fmt.Errorf("starting etcd: %w", err)
	}
	clientURL, peerURL := loopbackURL(client), loopbackURL(peer)

	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{logFile}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", nil, fmt.Errorf("starting etcd: %w", err)
	}
	stop = func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			server.Close()
		}()
		select {
		case <-closed:
		case <-time.After(2 * time.Second):
		}
	}
	select {
	case <-server.Server.ReadyNotify():
		return clientURL.String(), stop, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(30 * time.Second):
		err = errors.New("not ready after 30 s")
	}
	stop()
	return "", nil, fmt.Errorf("starting etcd: %w", err)
}
