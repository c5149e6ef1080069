// Package events plays the part of EventBridge and of Lambda's asynchronous invocation that moto does not: moto holds
// the rules, the targets, the functions and their policies of one region, and the bridge acts on them.
//
//	caller --AWS_ENDPOINT_URL--> Bridge --all else--> moto
//	                               |  PutEvents: rules and targets as moto holds them
//	                               |  Invoke
//	                               +--> fakes/lambda: the function's bootstrap, with moto's settings of the function
//	                                      |
//	                                      +--> SQS on moto (destinations), CloudWatch Logs on moto (the log)
//
// It is not the real EventBridge. It follows the EventBridge User Guide and API reference and the Lambda Developer
// Guide as far as this project's tests need it: event patterns (package pattern) and rule state, whether the function's
// policy lets the rule invoke it, a function's retries and destinations, and its log group. An event is tried once at a
// target, and no dead-letter queue is written to. A pattern that the bridge cannot read is an error of Drain and Close.
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

	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// account is moto's own.
const account = "123456789012"

// Options say what the bridge stands in front of.
type Options struct {
	Moto   string // moto's URL
	Region string

	// Functions are the programs behind the functions that moto holds, by the same name. Their settings are moto's; the
	// environment is moto's too, with the variables given here added.
	Functions []fakelambda.Function
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

// Delivery is what became of an event at one target of one rule; of a rule that did not want it, there is one without a
// target.
type Delivery struct {
	EventID   string
	Rule      string // its ARN
	TargetARN string
	Delivered bool
	Reason    string // why not
}

// Start serves on a free port of 127.0.0.1. Close must be called.
func Start(ctx context.Context, options Options) (*Bridge, error) {
	moto, err := url.Parse(options.Moto)
	if err != nil {
		return nil, fmt.Errorf("starting a bridge: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a bridge: %w", err)
	}
	b := &Bridge{URL: "http://" + listener.Addr().String(), options: options, moto: at(options)}
	b.lifetime, b.end = context.WithCancel(context.Background())
	b.functions = &functions{Bridge: b, running: map[string]*running{}}
	b.server = &http.Server{Handler: b.handler(moto)}
	go b.server.Serve(listener)
	return b, nil
}

// at is the configuration of clients of moto. Nothing is tried again: what fails on loopback fails for good.
func at(o Options) aws.Config {
	return aws.Config{Region: o.Region, BaseEndpoint: &o.Moto, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", "")}
}

// handler answers what is the bridge's to answer, and passes everything else on to moto.
func (b *Bridge) handler(moto *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(moto)
		r.Out.Host = r.In.Host // moto puts the host into the URLs that it makes, and it is signed
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

// refuse answers with an error, in the form that the JSON protocols and Lambda's REST protocol share.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-ErrorType", code)
	w.WriteHeader(status)
	w.Write(encode(map[string]string{"__type": code, "message": message}))
}

// Deliveries are those so far, in their order.
func (b *Bridge) Deliveries() []Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.deliveries)
}

func (b *Bridge) tell(d Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliveries = append(b.deliveries, d)
}

// start does something in the background. What goes wrong with it a test must hear of though nobody waits for it.
func (b *Bridge) start(what func() error) {
	b.mu.Lock()
	b.underWay++
	b.mu.Unlock()
	go func() {
		err := what()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.underWay--
		if err != nil && b.lifetime.Err() == nil { // else it is the end's
			b.problems = append(b.problems, err)
		}
	}()
}

// idle waits until nothing is under way in the background.
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

// Drain waits until every event has been tried at its targets, every invocation that came of it is over, and records
// and logs are written. It returns what the bridge could not do.
func (b *Bridge) Drain(ctx context.Context) error {
	for _, wait := range []func(context.Context) error{b.idle, b.functions.drain, b.idle} { // the last for the logs
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return b.failed()
}

// Close ends the endpoint and every function. Moto runs on. The error is Drain's.
func (b *Bridge) Close() error {
	err := errors.Join(b.server.Close(), b.failed())
	b.end()
	return errors.Join(err, b.functions.close(), b.idle(context.Background()))
}
