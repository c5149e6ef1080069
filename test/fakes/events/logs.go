package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// logGroup sends a function's log to CloudWatch Logs in the background, with an event for each line.
type logGroup struct {
	*Bridge
	name string

	mu       sync.Mutex
	lines    []types.InputLogEvent // not sent yet
	shipping bool
}

// Write accepts whole lines.
func (g *logGroup) Write(p []byte) (int, error) {
	now := aws.Int64(time.Now().UnixMilli())
	g.mu.Lock()
	defer g.mu.Unlock()
	for line := range bytes.Lines(p) {
		if message := strings.TrimRight(string(line), "\n"); message != "" { // PutLogEvents rejects empty ones
			g.lines = append(g.lines, types.InputLogEvent{Message: &message, Timestamp: now})
		}
	}
	if !g.shipping && len(g.lines) > 0 {
		g.shipping = true
		g.start(g.ship)
	}
	return len(p), nil
}

func (g *logGroup) ship() error {
	var err error
	for {
		g.mu.Lock()
		lines := g.lines
		g.lines, g.shipping = nil, len(lines) > 0
		g.mu.Unlock()
		if len(lines) == 0 {
			return err
		}
		if bad := g.send(g.lifetime, lines); bad != nil {
			err = errors.Join(err, fmt.Errorf("writing to log group %s: %w", g.name, bad))
		}
	}
}

// send also creates the group if it does not exist, as Lambda does.
func (g *logGroup) send(ctx context.Context, lines []types.InputLogEvent) error {
	client, stream := cloudwatchlogs.NewFromConfig(g.moto), aws.String("local/[$LATEST]")
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &g.name, LogStreamName: stream, LogEvents: lines}
	_, err := client.PutLogEvents(ctx, in)
	var none *types.ResourceNotFoundException
	if !errors.As(err, &none) {
		return err
	}
	var exists *types.ResourceAlreadyExistsException
	_, err = client.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &g.name})
	if err != nil && !errors.As(err, &exists) {
		return err
	}
	made := &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &g.name, LogStreamName: stream}
	if _, err = client.CreateLogStream(ctx, made); err != nil {
		return err
	}
	_, err = client.PutLogEvents(ctx, in)
	return err
}
