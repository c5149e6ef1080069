package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// functions runs the functions that moto only describes. Each has its own Lambda service with moto's settings, created
// at the first invocation and again when they change.
type functions struct {
	*Bridge

	mu      sync.Mutex
	running map[string]*running // by name
}

type running struct {
	settings settings
	service  *fakelambda.Service
}

// settings are moto's settings of a function that affect how it runs.
type settings struct {
	timeout     time.Duration
	memorySize  int
	environment map[string]string

	retries              *int
	onSuccess, onFailure string // ARNs
}

// serve forwards a request to the local Lambda service of a function in moto.
func (f *functions) serve(w http.ResponseWriter, r *http.Request) {
	s, err := f.service(r.Context(), fakelambda.NameOf(r.PathValue("name")))
	var none *types.ResourceNotFoundException
	switch {
	case err == nil:
		s.ServeHTTP(w, r)
	case errors.As(err, &none):
		refuse(w, http.StatusNotFound, none.ErrorCode(), err.Error())
	default:
		refuse(w, http.StatusInternalServerError, "ServiceException", err.Error())
	}
}

// service returns the Lambda service of a function with its current settings.
func (f *functions) service(ctx context.Context, name string) (*fakelambda.Service, error) {
	set, err := f.settings(ctx, name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(f.options.Functions, func(fn fakelambda.Function) bool { return fn.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("function %s has no program on this machine: name one in Options.Functions", name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lifetime.Err() != nil {
		return nil, errors.New("the bridge is closed")
	}
	is := f.running[name]
	if is != nil && reflect.DeepEqual(is.settings, set) {
		return is.service, nil
	}
	s, err := fakelambda.New(fakelambda.Options{AccountID: account, Region: f.options.Region,
		Functions: []fakelambda.Function{f.function(f.options.Functions[i], set)}})
	if err != nil {
		return nil, err
	}
	if is != nil { // it stops when its accepted events are finished
		f.start(func() error { return errors.Join(is.service.Drain(f.lifetime), is.service.Close()) })
	}
	f.running[name] = &running{set, s}
	return s, nil
}

// function returns the configuration of the local function: its program with moto's settings.
func (f *functions) function(program fakelambda.Function, set settings) fakelambda.Function {
	fn := program
	fn.Timeout, fn.MemorySize = set.timeout, set.memorySize
	fn.Environment = maps.Clone(set.environment)
	if fn.Environment == nil {
		fn.Environment = map[string]string{}
	}
	maps.Copy(fn.Environment, program.Environment)
	fn.Environment["AWS_ENDPOINT_URL_EVENTBRIDGE"] = f.URL
	fn.Async = fakelambda.AsyncConfig{MaximumRetryAttempts: set.retries,
		OnSuccess: f.destination(set.onSuccess), OnFailure: f.destination(set.onFailure)}
	fn.Logs = &logGroup{Bridge: f.Bridge, name: "/aws/lambda/" + fn.Name}
	return fn
}

func (f *functions) settings(ctx context.Context, name string) (settings, error) {
	client := lambda.NewFromConfig(f.moto)
	is, err := client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
	if err != nil {
		return settings{}, fmt.Errorf("reading the settings of function %s: %w", name, err)
	}
	set := settings{memorySize: int(aws.ToInt32(is.MemorySize))}
	set.timeout = time.Duration(aws.ToInt32(is.Timeout)) * time.Second
	if e := is.Environment; e != nil {
		set.environment = e.Variables
	}
	async, err := client.GetFunctionEventInvokeConfig(ctx,
		&lambda.GetFunctionEventInvokeConfigInput{FunctionName: &name})
	if err != nil {
		return settings{}, fmt.Errorf("reading how events are handled for function %s: %w", name, err)
	}
	if n := async.MaximumRetryAttempts; n != nil {
		set.retries = new(int(*n))
	}
	to := cmp.Or(async.DestinationConfig, &types.DestinationConfig{})
	set.onSuccess = aws.ToString(cmp.Or(to.OnSuccess, &types.OnSuccess{}).Destination)
	set.onFailure = aws.ToString(cmp.Or(to.OnFailure, &types.OnFailure{}).Destination)
	return set, nil
}

// destination sends the records of a function's asynchronous invocations to the queue in moto. The function's log has
// its errors.
func (f *functions) destination(queue string) fakelambda.Destination {
	if queue == "" {
		return nil
	}
	return func(r fakelambda.Record) error {
		to, err := arn.Parse(queue)
		if err != nil {
			return err
		}
		client := sqs.NewFromConfig(f.moto)
		url, err := client.GetQueueUrl(f.lifetime, &sqs.GetQueueUrlInput{QueueName: &to.Resource})
		if err != nil {
			return err
		}
		record := aws.String(string(encode(r)))
		_, err = client.SendMessage(f.lifetime, &sqs.SendMessageInput{QueueUrl: url.QueueUrl, MessageBody: record})
		return err
	}
}

func (f *functions) services() []*fakelambda.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*fakelambda.Service
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
