// Command lambda is the function that EventBridge invokes: an event in, its outcome out, or whether it could act.
package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/castai/kops-spot/internal/app"
)

// version is set by the build.
var version = "dev"

func main() {
	lambda.Start(handler(context.Background(), os.Environ(), os.Stdout))
}

// handler is the function, or where its configuration is wrong, one that tells so for each event: a function that only
// exits at its start tells nobody but its log.
func handler(ctx context.Context, environ []string, stdout io.Writer) func(context.Context, json.RawMessage) (any, error) {
	f, err := app.New(ctx, environ, version, stdout)
	if err != nil {
		app.Logger(stdout).Error("the function cannot start", "error", err.Error())
		return func(context.Context, json.RawMessage) (any, error) { return nil, err }
	}
	return f.Handle
}
