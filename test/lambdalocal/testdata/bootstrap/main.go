// A Lambda function that does what its event asks for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Do   string `json:"do"`
	MS   int    `json:"ms"`
	Path string `json:"path"`
	Text string `json:"text"`
}

func main() {
	count := 0
	var ticks atomic.Int64
	lambda.Start(func(ctx context.Context, payload json.RawMessage) (any, error) {
		count++
		var e event
		_ = json.Unmarshal(payload, &e) // an event of another shape is echoed
		switch e.Do {
		case "error":
			return nil, errors.New("it did not work")
		case "exit":
			fmt.Print("no newline")
			os.Exit(3)
		case "sleep":
			fmt.Println("sleeping")
			time.Sleep(time.Duration(e.MS) * time.Millisecond)
			return "slept", nil
		case "environment":
			return os.Environ(), nil
		case "identify":
			lc, _ := lambdacontext.FromContext(ctx)
			deadline, _ := ctx.Deadline()
			return map[string]any{"pid": os.Getpid(), "count": count, "arn": lc.InvokedFunctionArn,
				"seconds": math.Ceil(time.Until(deadline).Seconds())}, nil
		case "print":
			fmt.Print(e.Text)
			return nil, nil
		case "tick":
			go func() {
				for range time.Tick(time.Millisecond) {
					ticks.Add(1)
				}
			}()
		case "ticks":
			return ticks.Load(), nil
		case "twice": // fails the first time
			lc, _ := lambdacontext.FromContext(ctx)
			if first, err := os.ReadFile(e.Path); err == nil {
				return string(first) + " " + lc.AwsRequestID, nil
			}
			if err := os.WriteFile(e.Path, []byte(lc.AwsRequestID), 0o600); err != nil {
				return nil, err
			}
			return nil, errors.New("not yet")
		}
		return payload, nil
	})
}
