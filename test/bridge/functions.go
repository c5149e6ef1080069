package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// functions run on this machine what moto only describes. Each has a Lambda service of its own, made of moto's settings
// when it is first invoked, and made anew when they have changed.
type functions struct {
	lifetime context.Context
	moto     account
	programs map[string]lambdalocal.Function
	lambda   lambdalocal.Options
	work     *work

	mu      sync.Mutex
	running map[functionKey]*running
}

type functionKey struct{ region, name string }

type running struct {
	settings settings
	service  *lambdalocal.Service
}

// settings are what moto holds of a function that bears on how it runs.
type settings struct {
	timeout     time.Duration
	memorySize  int
	environment map[string]string
	concurrency *int

	retries              *int
	age                  time.Duration
	onSuccess, onFailure string // ARNs
}

func newFunctions(lifetime context.Context, o Options, moto account, w *work) (*functions, error) {
	f := &functions{lifetime: lifetime, moto: moto, work: w, lambda: o.Lambda,
		programs: map[string]lambdalocal.Function{}, running: map[functionKey]*running{}}
	if len(o.Lambda.Functions) > 0 {
		return nil, errors.New("the functions belong into Options.Functions")
	}
	for _, fn := range o.Functions {
		if _, twice := f.programs[fn.Name]; twice {
			return nil, fmt.Errorf("function %q is configured twice", fn.Name)
		}
		f.programs[fn.Name] = fn
	}
	return f, nil
}

// invoke is an invoker.
func (f *functions) invoke(ctx context.Context, region, function string, payload []byte) (string, error) {
	s, err := f.service(ctx, functionKey{region, bareName(function)})
	if err != nil {
		return "", err
	}
	res, err := s.Invoke(ctx, function, lambdalocal.Event, payload)
	return res.RequestID, err
}

// service returns the Lambda service of a function, with the settings that it has now. That moto has no such function is
// an *lambdalocal.Error.
func (f *functions) service(ctx context.Context, key functionKey) (*lambdalocal.Service, error) {
	set, err := f.settings(ctx, key)
	if err != nil {
		return nil, err
	}
	program, ok := f.programs[key.name]
	if !ok {
		return nil, fmt.Errorf("function %s has no program on this machine: name one in Options.Functions", key.name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lifetime.Err() != nil {
		return nil, errors.New("the bridge is closed")
	}
	is := f.running[key]
	if is != nil && reflect.DeepEqual(is.settings, set) {
		return is.service, nil
	}
	options := f.lambda
	options.Functions = []lambdalocal.Function{f.function(key, program, set)}
	options.AccountID, options.Region = f.moto.id, key.region
	s, err := lambdalocal.New(options)
	if err != nil {
		return nil, err
	}
	if is != nil {
		f.work.start(func() { f.retire(is.service) })
	}
	f.running[key] = &running{set, s}
	return s, nil
}

// retire ends a service that has been replaced, once the events that it has accepted are settled.
func (f *functions) retire(s *lambdalocal.Service) {
	_ = s.Drain(f.lifetime) // fails at the end of the bridge only, and then nothing is waited for
	if err := s.Close(); err != nil {
		f.work.failed(err)
	}
}

// function is the local function: its program with moto's settings.
func (f *functions) function(key functionKey, program lambdalocal.Function, set settings) lambdalocal.Function {
	fn := program
	if fn.Timeout == 0 {
		fn.Timeout = set.timeout
	}
	if fn.MemorySize == 0 {
		fn.MemorySize = set.memorySize
	}
	if fn.ReservedConcurrency == nil {
		fn.ReservedConcurrency = set.concurrency
	}
	fn.Environment = map[string]string{}
	maps.Copy(fn.Environment, set.environment)
	maps.Copy(fn.Environment, program.Environment)
	if set.retries != nil {
		fn.Async.MaximumRetryAttempts = set.retries
	}
	if set.age != 0 {
		fn.Async.MaximumEventAge = set.age
	}
	fn.Async.OnSuccess = f.destination(set.onSuccess, program.Async.OnSuccess)
	fn.Async.OnFailure = f.destination(set.onFailure, program.Async.OnFailure)
	fn.Logs = f.logs(key, program.Logs)
	return fn
}

func (f *functions) settings(ctx context.Context, key functionKey) (settings, error) {
	client := f.moto.lambda(key.region)
	out, err := client.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &key.name})
	var none *types.ResourceNotFoundException
	if errors.As(err, &none) {
		at := fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", key.region, f.moto.id, key.name)
		return settings{}, &lambdalocal.Error{StatusCode: http.StatusNotFound, Code: "ResourceNotFoundException", Message: "Function not found: " + at}
	}
	if err != nil {
		return settings{}, fmt.Errorf("reading the settings of function %s: %w", key.name, err)
	}
	set := settings{
		timeout:    time.Duration(aws.ToInt32(out.Configuration.Timeout)) * time.Second,
		memorySize: int(aws.ToInt32(out.Configuration.MemorySize)),
	}
	if e := out.Configuration.Environment; e != nil {
		set.environment = e.Variables
	}
	// GetFunction tells it too, but moto's not if it is zero.
	concurrency, err := client.GetFunctionConcurrency(ctx, &lambda.GetFunctionConcurrencyInput{FunctionName: &key.name})
	if err != nil {
		return settings{}, fmt.Errorf("reading the concurrency of function %s: %w", key.name, err)
	}
	set.concurrency = asInt(concurrency.ReservedConcurrentExecutions)
	async, err := client.GetFunctionEventInvokeConfig(ctx, &lambda.GetFunctionEventInvokeConfigInput{FunctionName: &key.name})
	if errors.As(err, &none) {
		return set, nil
	}
	if err != nil {
		return settings{}, fmt.Errorf("reading how events are handled for function %s: %w", key.name, err)
	}
	set.retries = asInt(async.MaximumRetryAttempts)
	set.age = time.Duration(aws.ToInt32(async.MaximumEventAgeInSeconds)) * time.Second
	if to := async.DestinationConfig; to != nil {
		if to.OnSuccess != nil {
			set.onSuccess = aws.ToString(to.OnSuccess.Destination)
		}
		if to.OnFailure != nil {
			set.onFailure = aws.ToString(to.OnFailure.Destination)
		}
	}
	return set, nil
}

func (f *functions) services() []*lambdalocal.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*lambdalocal.Service
	for _, is := range f.running {
		all = append(all, is.service)
	}
	return all
}

func (f *functions) drain(ctx context.Context) error {
	for _, s := range f.services() {
		if err := s.Drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *functions) close() error {
	var err error
	for _, s := range f.services() {
		err = errors.Join(err, s.Close())
	}
	return err
}

// functionOf is the name and the qualifier in a function's ARN.
func functionOf(a arn.ARN) (name string, qualifier *string) {
	name, rest, qualified := strings.Cut(strings.TrimPrefix(a.Resource, "function:"), ":")
	if qualified {
		qualifier = &rest
	}
	return name, qualifier
}

// bareName is the function's name in any of the forms that Invoke takes: a name, a partial ARN or an ARN, each with or
// without a qualifier.
func bareName(function string) string {
	if _, after, found := strings.Cut(function, "function:"); found {
		function = after
	}
	name, _, _ := strings.Cut(function, ":")
	return name
}

func asInt(n *int32) *int {
	if n == nil {
		return nil
	}
	return aws.Int(int(*n))
}
