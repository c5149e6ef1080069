package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
)

// Logger writes a line of JSON for each step.
func Logger(stdout io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(stdout, nil)) }

// Function is what the Lambda runs for each event.
type Function struct {
	handle func(context.Context, spot.Interruption) (spot.Outcome, error)
	stdout io.Writer // the function's log: lines of JSON
	log    *slog.Logger
}

// New makes the function that the environment (in the form of os.Environ) describes. It makes no request.
func New(ctx context.Context, environ []string, version string, stdout io.Writer) (*Function, error) {
	cfg, err := ParseConfig(environ)
	if err != nil {
		return nil, err
	}
	aws, err := config.LoadDefaultConfig(ctx, config.WithAppID("kops-spot"))
	if err != nil {
		return nil, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	if aws.Region == "" {
		return nil, errors.New("reading the AWS configuration: AWS_REGION: set it to the cluster's region; Lambda sets it by itself")
	}
	cloud := awscloud.New(aws)
	login, err := cfg.logIn(aws, cloud, "kops-spot/"+version)
	if err != nil {
		return nil, err
	}
	cluster, err := kube.New(login)
	if err != nil {
		return nil, err
	}
	log := Logger(stdout)
	h := &spot.Handler{Cluster: cluster, Cloud: cloud, Policy: spot.DefaultPolicy(cfg.Cluster), Log: log}
	f := &Function{handle: h.Handle, stdout: stdout, log: log}
	if cfg.Mode == Observe {
		f.handle = h.Preview
	}
	return f, nil
}

// Handle handles one event as EventBridge hands it to a function. An error means that nothing was done.
func (f *Function) Handle(ctx context.Context, event json.RawMessage) (spot.Outcome, error) {
	out, err := f.outcome(ctx, event)
	if err != nil {
		f.log.Error("nothing was done", "error", err.Error())
		return spot.Outcome{}, err
	}
	f.log.Info("outcome", "outcome", out)
	if err := writeMetrics(f.stdout, out, time.Now()); err != nil {
		f.log.Error("the metrics could not be written", "error", err.Error())
	}
	return out, nil
}

func (f *Function) outcome(ctx context.Context, event json.RawMessage) (spot.Outcome, error) {
	in, err := eventbridge.Decode(event)
	var unknown *eventbridge.UnknownError
	if errors.As(err, &unknown) {
		return spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Ignored, Reason: err.Error(),
			Event: spot.EventTold{ID: unknown.ID, Type: unknown.DetailType}}, nil
	}
	if err != nil {
		return spot.Outcome{}, err
	}
	return f.handle(ctx, in)
}
