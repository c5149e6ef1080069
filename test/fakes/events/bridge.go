// Package events does what moto does not: it delivers events like EventBridge and invokes functions like Lambda. moto
// has the rules, targets, functions and policies of one region; the bridge executes them.
//
//	caller --AWS_ENDPOINT_URL--> Bridge --all else--> moto
//	                               |  PutEvents: rules and targets as moto holds them
//	                               |  Invoke           |
//	                               |                   +--> SNS on moto, and API destinations (notifications)
//	                               +--> fakes/lambda: the function's bootstrap, with moto's settings of the function
//	                                      |
//	                                      +--> SQS on moto (destinations), CloudWatch Logs on moto (the log)
//
// It is not the real EventBridge. It follows the EventBridge User Guide and API reference and the Lambda Developer
// Guide as far as these tests need: event patterns (package pattern), rule state, the function's policy, retries,
// destinations and log group. Only for API destinations does it retry and use the dead-letter queue; it knows no limit
// of their rate. Drain and Close return an error for a pattern that the bridge cannot read.
package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// account is moto's account.
const account = "123456789012"

// Options configure a Bridge.
type Options struct {
	Moto   string // moto's URL
	Region string

	// Functions are the programs of the functions in moto, by name. moto has their settings and environment; these
	// variables are added.
	Functions []fakelambda.Function

	Internet   *http.Client  // for API destinations; nil for none
	RetryLimit time.Duration // of API destinations, instead of a target's
}

// Bridge is an endpoint in front of moto.
type Bridge struct {
	URL string // for AWS_ENDPOINT_URL

	options   Options
	moto      aws.Config
	server    *http.Server
	functions *functions
	lifetime  context.Context
	end       context.CancelFunc

	mu         sync.Mutex
	underWay   int // in the background
	problems   []error
	deliveries []Delivery
}

// Delivery is the result of an event at one target of a rule. If the rule did not match, there is one without a target.
type Delivery struct {
	EventID   string
	Rule      string // its ARN
	TargetARN string
	Delivered bool
	Reason    string // why it was not delivered
	Input     string // what the target got, if its rule transforms events
}

// Start serves on a free port of 127.0.0.1. Callers must call Close.
func Start(ctx context.Context, options Options) (*Bridge, error) {
	moto, err := url.Parse(options.Moto)
	if err != nil {
		return nil, fmt.Errorf("starting the bridge: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the bridge: %w", err)
	}
	b := &Bridge{URL: "http://" + listener.Addr().String(), options: options, moto: at(options)}
	b.lifetime, b.end = context.WithCancel(context.Background())
	b.functions = &functions{Bridge: b, running: map[string]*running{}}
	b.server = &http.Server{Handler: b.handler(moto)}
	go b.server.Serve(listener)
	return b, nil
}

// at configures clients of moto without retries: an error on loopback is permanent.
func at(o Options) aws.Config {
	return kopsaws.PlainBodies(aws.Config{Region: o.Region, BaseEndpoint: &o.Moto, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", "")})
}

// handler handles the bridge's own requests and forwards all others to moto.
func (b *Bridge) handler(moto *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(moto)
		r.Out.Host = r.In.Host // moto uses the host in URLs, and it is signed
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", b.functions.serve)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") == "AWSEvents.PutEvents" {
			b.putEvents(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	return mux
}

// refuse responds with an error in the format shared by the JSON protocols and Lambda's REST protocol.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-ErrorType", code)
	w.WriteHeader(status)
	w.Write(encode(map[string]string{"__type": code, "message": message}))
}

// Deliveries returns the deliveries so far, in order.
func (b *Bridge) Deliveries() []Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.deliveries)
}

func (b *Bridge) record(d Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliveries = append(b.deliveries, d)
}

// start runs a background task. Drain and Close return its error.
func (b *Bridge) start(what func() error) {
	b.mu.Lock()
	b.underWay++
	b.mu.Unlock()
	go func() {
		err := what()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.underWay--
		if err != nil && b.lifetime.Err() == nil { // otherwise the bridge is closing
			b.problems = append(b.problems, err)
		}
	}()
}

// idle waits for all background tasks.
func (b *Bridge) idle(ctx context.Context) error {
	for {
		b.mu.Lock()
		n := b.underWay
		b.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the bridge: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (b *Bridge) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.problems...)
}

// Drain waits until every event has been delivered, every resulting invocation has finished, and records and logs are
// written. It returns the bridge's errors.
func (b *Bridge) Drain(ctx context.Context) error {
	for _, wait := range []func(context.Context) error{b.idle, b.functions.drain, b.idle} { // the last for the logs
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return b.failed()
}

// Close stops the endpoint and every function, but not moto. The error is Drain's.
func (b *Bridge) Close() error {
	err := errors.Join(b.server.Close(), b.failed())
	b.end()
	return errors.Join(err, b.functions.close(), b.idle(context.Background()))
}
