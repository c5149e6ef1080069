package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// Options say what the bridge stands in front of.
type Options struct {
	Moto string // moto's URL

	Account string // 123456789012, moto's own, if empty
	Region  string // us-east-1 if empty; a signed call is for the region that it names

	// Functions are the programs behind the functions that moto holds, by the same name. A zero Timeout, MemorySize or
	// ReservedConcurrency is moto's; the environment is moto's too, with the variables given here added. Retries, event
	// age and destinations are moto's where they are set there; a destination given here hears of the records as well.
	Functions []lambdalocal.Function

	// Lambda is the local Lambda service otherwise. Its functions, account and region are those above.
	Lambda lambdalocal.Options

	// AllowAWSSources lets PutEvents take events whose source begins with "aws.", which AWS keeps to its own services.
	AllowAWSSources bool

	// RetryDelay is the wait before a target is tried again; it doubles with each try, up to five minutes. AWS does not
	// say its own. 1 s if zero.
	RetryDelay time.Duration
}

// Bridge is an endpoint in front of moto.
type Bridge struct {
	URL string // for AWS_ENDPOINT_URL

	options   Options
	moto      account
	server    *http.Server
	functions *functions
	lifetime  context.Context
	end       context.CancelFunc
	work      *work
	journal   journal
	invoke    invoker
}

// invoker accepts an asynchronous event for a function, named by its ARN, and returns the request's id. A refusal is an
// *lambdalocal.Error.
type invoker func(ctx context.Context, region, function string, payload []byte) (requestID string, err error)

// Start serves on a free port of 127.0.0.1. Close must be called.
func Start(ctx context.Context, options Options) (*Bridge, error) {
	options.Account = cmp.Or(options.Account, "123456789012")
	options.Region = cmp.Or(options.Region, "us-east-1")
	options.RetryDelay = cmp.Or(options.RetryDelay, time.Second)
	moto, err := url.Parse(options.Moto)
	if err != nil || moto.Host == "" {
		return nil, fmt.Errorf("starting a bridge: %q is not moto's URL", options.Moto)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a bridge: %w", err)
	}
	b := &Bridge{URL: "http://" + listener.Addr().String(), options: options, moto: newAccount(options), work: newWork()}
	b.lifetime, b.end = context.WithCancel(context.Background())
	if b.functions, err = newFunctions(b.lifetime, options, b.moto, b.work); err != nil {
		b.end()
		listener.Close()
		return nil, fmt.Errorf("starting a bridge: %w", err)
	}
	b.invoke = b.functions.invoke
	b.server = &http.Server{Handler: b.handler(moto)}
	go b.server.Serve(listener)
	return b, nil
}

// Drain waits until every event has reached its targets or failed for good, every invocation that came of it is over,
// and records and logs are written. It returns what the bridge could not do, such as to reach moto.
func (b *Bridge) Drain(ctx context.Context) error {
	if err := b.work.wait(ctx); err != nil {
		return fmt.Errorf("waiting for the targets: %w", err)
	}
	if err := b.functions.drain(ctx); err != nil {
		return err
	}
	if err := b.work.wait(ctx); err != nil { // what those invocations left: logs, and services whose settings have changed
		return fmt.Errorf("waiting for the logs: %w", err)
	}
	return b.work.problems()
}

// Close ends the endpoint, what waits to be tried again, and every function. Moto runs on. The error is Drain's.
func (b *Bridge) Close() error {
	err := b.server.Close()
	b.work.stop()
	b.end()
	err = errors.Join(err, b.functions.close())
	<-b.work.idle()
	return errors.Join(err, b.work.problems())
}
