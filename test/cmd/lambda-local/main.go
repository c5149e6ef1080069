// Command lambda-local serves one function's bootstrap the way AWS Lambda does:
//
//	lambda-local -bootstrap ./bootstrap -name kops-spot -env KOPS_SPOT_MODE=observe &
//	aws lambda invoke --endpoint-url http://127.0.0.1:3001 --function-name kops-spot \
//	  --cli-binary-format raw-in-base64-out --payload file://event.json out.json
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/castai/kops-spot/test/lambdalocal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "lambda-local:", err)
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	addr                 string
	region, account      string
	onSuccess, onFailure string
	function             lambdalocal.Function
}

// run serves until ctx ends. The address goes to out, the function's log and
// what else there is to say to errOut.
func run(ctx context.Context, args []string, getenv func(string) string, out, errOut io.Writer) error {
	set, err := parse(args, getenv, errOut)
	if err != nil {
		return err
	}
	for _, destination := range []struct {
		path string
		to   *lambdalocal.Destination
	}{
		{set.onSuccess, &set.function.Async.OnSuccess},
		{set.onFailure, &set.function.Async.OnFailure},
	} {
		if destination.path == "" {
			continue
		}
		file, err := os.OpenFile(destination.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the destination: %w", err)
		}
		defer file.Close()
		*destination.to = lambdalocal.JSONLines(file)
	}
	set.function.Logs = errOut
	service, err := lambdalocal.New(lambdalocal.Options{
		Functions: []lambdalocal.Function{set.function},
		Region:    set.region,
		AccountID: set.account,
	})
	if err != nil {
		return err
	}
	defer service.Close()
	return serve(ctx, set, service, out)
}

func serve(ctx context.Context, set settings, service *lambdalocal.Service, out io.Writer) error {
	listener, err := net.Listen("tcp", set.addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: service, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer server.Close()
	fmt.Fprintf(out, "serving %s on http://%s\n", set.function.Name, listener.Addr())
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	}
}

func parse(args []string, getenv func(string) string, errOut io.Writer) (settings, error) {
	region := cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"))
	set := settings{function: lambdalocal.Function{Environment: map[string]string{}}}
	fn := &set.function
	var concurrency, retries int
	var envFile string
	fs := flag.NewFlagSet("lambda-local", flag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.StringVar(&fn.Bootstrap, "bootstrap", "./bootstrap", "the function's executable")
	fs.StringVar(&fn.Name, "name", "function", "the function's name")
	fs.StringVar(&set.addr, "addr", "127.0.0.1:3001", "loopback address to serve the Invoke API on")
	fs.DurationVar(&fn.Timeout, "timeout", time.Minute, "the function's timeout, at most 15m")
	fs.IntVar(&fn.MemorySize, "memory", 128, "memory size in MB; reported, not enforced")
	fs.IntVar(&concurrency, "concurrency", -1, "reserved concurrency; -1 reserves none")
	fs.Func("env", "`K=V` for the function, repeatable; AWS_ACCESS_KEY_ID and the like are the role's credentials", func(pair string) error {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return errors.New("want K=V")
		}
		fn.Environment[name] = value
		return nil
	})
	fs.StringVar(&envFile, "env-file", "", "`file` of environment variables, in the form of sam local's --env-vars; -env overrules it")
	fs.IntVar(&retries, "retries", 2, "MaximumRetryAttempts of asynchronous events, 0 to 2")
	fs.DurationVar(&fn.Async.MaximumEventAge, "max-age", 6*time.Hour, "MaximumEventAge of asynchronous events")
	fs.StringVar(&set.onSuccess, "on-success", "", "`file` to append the records of successful events to, one a line")
	fs.StringVar(&set.onFailure, "on-failure", "", "`file` to append the records of failed events to, one a line")
	fs.StringVar(&set.region, "region", region, "region of the function; us-east-1 if empty")
	fs.StringVar(&set.account, "account", "123456789012", "account of the function")
	if err := fs.Parse(args); err != nil {
		return settings{}, err
	}
	if fs.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if envFile != "" {
		variables, err := readVariables(envFile, fn.Name)
		if err != nil {
			return settings{}, err
		}
		maps.Copy(variables, fn.Environment)
		if !withCredentials(variables, getenv) {
			fmt.Fprintln(errOut, "there are no AWS credentials in the environment: the function is served with made-up ones, which AWS refuses; "+
				`eval "$(aws configure export-credentials --format env)" sets them`)
		}
		fn.Environment = variables
	}
	if concurrency >= 0 {
		fn.ReservedConcurrency = &concurrency
	}
	fn.Async.MaximumRetryAttempts = &retries
	return set, requireLoopback(set.addr)
}

// requireLoopback keeps the service, which asks nobody who they are, off the
// network.
func requireLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("reading the address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("address %s is not a loopback address such as 127.0.0.1:3001: anyone who reaches the service can run the function", addr)
	}
	return nil
}
