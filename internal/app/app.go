// Package app configures the function from environment variables and connects it to AWS and Kubernetes.
package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
)

// Logger returns a logger that writes one line of JSON per message.
func Logger(stdout io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(stdout, nil)) }

// Function is the Lambda function.
type Function struct {
	cluster string
	handle  func(context.Context, spot.Interruption) (spot.Outcome, error)
	check   func(context.Context) SelfCheck
	stdout  io.Writer // the function's log: lines of JSON
	log     *slog.Logger
}

// Lambda reports the name of an error's type as errorType, by which consoles and filters group errors.
type (
	ConfigurationError struct{ error }
	EventError         struct{ error } // the event could not be decoded
	HandlingError      struct{ error }
)

func (e ConfigurationError) Unwrap() error { return e.error }
func (e EventError) Unwrap() error         { return e.error }
func (e HandlingError) Unwrap() error      { return e.error }

// New returns a function configured by environ, which has the form of os.Environ. It makes no requests. Its errors are
// ConfigurationErrors.
func New(ctx context.Context, environ []string, version string, stdout io.Writer) (*Function, error) {
	f, err := newFunction(ctx, environ, version, stdout)
	if err != nil {
		return nil, ConfigurationError{err}
	}
	return f, nil
}

func newFunction(ctx context.Context, environ []string, version string, stdout io.Writer) (*Function, error) {
	cfg, err := ParseConfig(environ)
	if err != nil {
		return nil, err
	}
	awsConfig, err := config.LoadDefaultConfig(ctx, config.WithAppID("kops-spot"))
	if err != nil {
		return nil, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	if awsConfig.Region == "" {
		return nil, errors.New("reading the AWS configuration: AWS_REGION is not set: set it to the cluster's region (Lambda sets it automatically)")
	}
	cloud, userAgent := aws.New(awsConfig), "kops-spot/"+version
	login, err := cfg.logIn(awsConfig, cloud, userAgent)
	if err != nil {
		return nil, err
	}
	cluster, err := kube.New(login)
	if err != nil {
		return nil, err
	}
	log := Logger(stdout)
	h := &handler.Handler{Cluster: cluster, Cloud: cloud, Policy: cfg.Policy, Publisher: cloud, Log: log}
	f := &Function{cluster: cfg.Cluster, handle: h.Handle, stdout: stdout, log: log}
	if cfg.Mode == Observe {
		f.handle = h.Preview
	}
	checker := selfChecker{cfg: cfg, cluster: cluster, cloud: cloud, texts: cfg.texts(cloud), program: version,
		reach: func(ctx context.Context) error { return kube.Reach(ctx, login) }}
	if autoscaler := cfg.castai.client(cloud, userAgent); autoscaler != nil {
		h.Autoscaler, checker.castai = autoscaler, autoscaler.Verify
	}
	f.check = checker.run
	return f, nil
}

// Handle handles one EventBridge event. It returns a spot.Outcome or, for a self-check, a SelfCheck. An error means
// that nothing was changed.
func (f *Function) Handle(ctx context.Context, event json.RawMessage) (any, error) {
	e, err := eventbridge.Decode(event)
	var unknown *eventbridge.UnknownError
	switch {
	case errors.As(err, &unknown):
		out := spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Ignored, Reason: err.Error(), Cluster: f.cluster,
			Event: spot.EventInfo{ID: unknown.ID, DetailType: unknown.DetailType}}
		f.log.Info("outcome", "outcome", out)
		return out, nil
	case err != nil:
		return nil, f.failed("", EventError{err})
	case e.SelfCheck:
		return f.selfCheck(ctx, e.ID), nil
	}
	out, err := f.interrupted(ctx, e.Interruptions)
	if err != nil {
		return nil, f.failed(e.ID, HandlingError{err})
	}
	return out, nil
}

func (f *Function) failed(event string, err error) error {
	f.log.Error("handling failed", "event", event, "error", err.Error())
	return err
}

// interrupted handles an event about one or more instances.
func (f *Function) interrupted(ctx context.Context, all []spot.Interruption) (spot.Outcome, error) {
	out, err := f.handleAll(ctx, all)
	if err != nil {
		return out, err
	}
	f.log.Info("outcome", "outcome", out)
	each := out.Outcomes
	if len(each) == 0 {
		each = []spot.Outcome{out}
	}
	for i, one := range each {
		f.measure(one, metricsOf(all[i], one))
	}
	return out, nil
}

// selfCheck reports whether the function is ready to act. NotReady is not an error: a retry by Lambda would not help,
// and the metric has an alarm.
func (f *Function) selfCheck(ctx context.Context, event string) SelfCheck {
	result := f.check(ctx)
	f.log.Info("self-check", "event", event, "self_check", result)
	f.measure(spot.Outcome{Cluster: result.Cluster}, result.metrics())
	return result
}

func (f *Function) measure(of spot.Outcome, metrics []metric) {
	if err := writeMetrics(f.stdout, of, metrics, time.Now()); err != nil {
		f.log.Error("writing metrics failed", "error", err.Error())
	}
}

// parallelInstances limits how many instances of one event are handled in parallel. An AWS Health event can name
// dozens, mostly of other clusters. A drain can take the whole invocation, so an instance that waits for a slot may get
// no time.
const parallelInstances = 50

// handleAll handles the interruptions of one event. For several instances, it returns the most severe outcome, with all
// outcomes in it in the event's order.
//
// It returns an error only if handling failed and nothing was done for any instance. If something was done, a failure
// becomes an outcome: an error would make Lambda retry the whole event.
func (f *Function) handleAll(ctx context.Context, all []spot.Interruption) (spot.Outcome, error) {
	if len(all) == 1 {
		return f.handle(ctx, all[0])
	}
	each, errs := make([]spot.Outcome, len(all)), make([]error, len(all))
	slots := make(chan struct{}, parallelInstances)
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			each[i], errs[i] = f.handle(ctx, in)
		})
	}
	wg.Wait()
	done := false
	for i := range each {
		if errs[i] == nil {
			done = done || each[i].Result.ConcernsCluster()
			continue
		}
		errs[i] = fmt.Errorf("instance %s: %w", all[i].Instance, errs[i])
		each[i] = f.untouched(all[i], errs[i])
	}
	if err := errors.Join(errs...); err != nil && !done {
		return spot.Outcome{}, err
	}
	out := slices.MinFunc(each, func(a, b spot.Outcome) int {
		return cmp.Compare(a.Result.Severity(), b.Result.Severity())
	})
	out.Outcomes = each
	return out, nil
}

// untouched returns the outcome of an interruption that could not be handled.
func (f *Function) untouched(in spot.Interruption, err error) spot.Outcome {
	return spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Incomplete, Reason: "handling failed", Cluster: f.cluster,
		Event: spot.EventInfo{ID: in.EventID, Kind: in.Kind, Instance: in.Instance, Time: in.Time,
			Rehearsal: in.Rehearsal},
		Problems: []string{err.Error()}}
}
