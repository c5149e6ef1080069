// A Lambda function whose event says what to do.
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

func main() {
	count := 0
	var ticks atomic.Int64
	go func() {
		for range time.Tick(time.Millisecond) {
			ticks.Add(1)
		}
	}()
	lambda.Start(func(ctx context.Context, payload json.RawMessage) (any, error) {
		count++
		var e struct{ Do string }
		_ = json.Unmarshal(payload, &e) // other events are echoed
		switch e.Do {
		case "error":
			return nil, errors.New("it did not work")
		case "exit":
			fmt.Print("no newline")
			os.Exit(3)
		case "sleep":
			fmt.Println("sleeping")
			time.Sleep(time.Minute)
		case "environment":
			return os.Environ(), nil
		case "identify":
			lc, _ := lambdacontext.FromContext(ctx)
			deadline, _ := ctx.Deadline()
			return map[string]any{"pid": os.Getpid(), "count": count, "arn": lc.InvokedFunctionArn,
				"ticks":   ticks.Load(),
				"seconds": math.Ceil(time.Until(deadline).Seconds())}, nil
		}
		return payload, nil
	})
}
