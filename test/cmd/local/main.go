// Command local runs the function in AWS's Lambda runtime interface emulator, for `make local`.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"syscall"
)

const function = "SpotHandlerFunction" // in template.yaml, and so in a file for sam local's --env-vars

func main() {
	fmt.Fprintln(os.Stderr, "make local:", run(os.Getenv("EVENTS_ENV"), os.Getenv("PORT")))
	os.Exit(1)
}

func run(file, port string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading EVENTS_ENV: %w: name a file like events/env.json", err)
	}
	var functions map[string]map[string]string
	if json.Unmarshal(text, &functions) != nil || functions[function] == nil {
		// The decoder's error could show a part of a secret.
		return fmt.Errorf(`reading EVENTS_ENV: write %s in the form {"%s": {"NAME": "value"}}`, file, function)
	}
	// The emulator passes its environment to the function. On Lambda, the function gets none of the shell's variables
	// but these.
	region := cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1")
	environ := map[string]string{"AWS_LAMBDA_FUNCTION_NAME": function, "AWS_LAMBDA_FUNCTION_TIMEOUT": "900",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_REGION": region}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		environ[name] = os.Getenv(name)
	}
	maps.Copy(environ, functions[function])
	if environ["AWS_ACCESS_KEY_ID"] == "" {
		const run = `run eval "$(aws configure export-credentials --format env)"`
		return errors.New("reading the AWS credentials: AWS_ACCESS_KEY_ID is not set: " + run)
	}
	var list []string
	for name, value := range environ {
		list = append(list, name+"="+value)
	}
	invoke, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return fmt.Errorf("checking the port: %w: set PORT to a free one", err)
	}
	runtime, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("finding a port for the runtime API: %w", err)
	}
	fmt.Println("serving the function on http://" + invoke.Addr().String())
	args := []string{"test/bin/aws-lambda-rie", "--log-level", "error", "--runtime-api-address",
		runtime.Addr().String(),
		"--runtime-interface-emulator-address", invoke.Addr().String(), "bin/bootstrap"}
	return fmt.Errorf("starting the emulator: %w: run make local",
		syscall.Exec(args[0], args, list)) // closes the ports
}
