package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// logGroup sends a function's log to CloudWatch Logs, each line an event, in the background as Lambda does.
type logGroup struct {
	functions   *functions
	region      string
	name        string
	streamReady bool // used by one shipment at a time

	mu       sync.Mutex
	lines    []types.InputLogEvent // not sent yet
	shipping bool
}

// logStream is what the function is told in AWS_LAMBDA_LOG_STREAM_NAME. There is one for all environments.
const logStream = "local/[$LATEST]"

// shipmentLimit is how many events PutLogEvents takes at once.
const shipmentLimit = 10_000

// logs is where a function's log goes: to its log group, and to whom the options name.
func (f *functions) logs(key functionKey, also io.Writer) io.Writer {
	group := &logGroup{functions: f, region: key.region, name: "/aws/lambda/" + key.name}
	if also == nil {
		return group
	}
	return io.MultiWriter(group, also)
}

// Write takes whole lines.
func (g *logGroup) Write(p []byte) (int, error) {
	now := aws.Int64(time.Now().UnixMilli())
	g.mu.Lock()
	defer g.mu.Unlock()
	for line := range bytes.Lines(p) {
		if message := strings.TrimRight(string(line), "\n"); message != "" { // PutLogEvents takes no empty ones
			g.lines = append(g.lines, types.InputLogEvent{Message: &message, Timestamp: now})
		}
	}
	if !g.shipping && len(g.lines) > 0 {
		g.shipping = true
		g.functions.work.start(g.ship)
	}
	return len(p), nil
}

func (g *logGroup) ship() {
	for {
		g.mu.Lock()
		n := min(len(g.lines), shipmentLimit)
		lines := g.lines[:n]
		g.lines = g.lines[n:]
		g.shipping = n > 0
		g.mu.Unlock()
		if n == 0 {
			return
		}
		if err := g.send(g.functions.lifetime, lines); err != nil {
			g.functions.work.failed(fmt.Errorf("writing to log group %s: %w", g.name, err))
		}
	}
}

func (g *logGroup) send(ctx context.Context, lines []types.InputLogEvent) error {
	err := g.sendOnce(ctx, lines)
	var gone *types.ResourceNotFoundException
	if errors.As(err, &gone) { // somebody has deleted the group since, and with it the stream
		g.streamReady = false
		err = g.sendOnce(ctx, lines)
	}
	return err
}

func (g *logGroup) sendOnce(ctx context.Context, lines []types.InputLogEvent) error {
	client := g.functions.moto.logs(g.region)
	if !g.streamReady {
		// Lambda makes the group too if nobody has.
		var exists *types.ResourceAlreadyExistsException
		_, err := client.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &g.name})
		if err != nil && !errors.As(err, &exists) {
			return err
		}
		_, err = client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &g.name, LogStreamName: aws.String(logStream)})
		if err != nil && !errors.As(err, &exists) {
			return err
		}
		g.streamReady = true
	}
	_, err := client.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &g.name, LogStreamName: aws.String(logStream), LogEvents: lines})
	return err
}
