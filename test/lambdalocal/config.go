package lambdalocal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options describe the Lambda service of one account in one region.
type Options struct {
	Functions []Function

	Region    string // us-east-1 if empty
	AccountID string // 123456789012 if empty

	// AccountConcurrency is shared by the functions that reserve none. 1000 if
	// zero, AWS's default quota; a new account may start with 10.
	AccountConcurrency int

	// InitLimit is how long a bootstrap may take to ask for its first
	// invocation. 10 s if zero, as on AWS.
	InitLimit time.Duration

	// Delays are AWS's own if zero.
	Delays Delays
}

// Delays space out the attempts at one asynchronous event.
type Delays struct {
	// Retries follow the first and the second function error: one minute, then
	// two ("Error handling for asynchronous invocation", Developer Guide).
	Retries [2]time.Duration

	// After a throttle or a service error the wait grows from ThrottleMin to
	// ThrottleMax, doubling: from 1 s to 5 min (same page).
	ThrottleMin, ThrottleMax time.Duration
}

// Function is one function's configuration.
type Function struct {
	Name      string
	Bootstrap string // path of the executable; its folder is LAMBDA_TASK_ROOT

	// Environment holds the configured variables, and the credentials of the
	// function's role (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
	// AWS_SESSION_TOKEN); without any of the three the word "testing" stands in
	// for each. Lambda sets the other AWS_ variables itself and refuses them here.
	Environment map[string]string

	Timeout    time.Duration // 3 s if zero, Lambda's default
	MemorySize int           // in MB, 128 if zero; reported, not enforced

	// ReservedConcurrency is the function's share of the account's concurrency,
	// and its limit. Nil reserves none; zero stops the function.
	ReservedConcurrency *int

	Async AsyncConfig

	// Logs receives what the function prints and the lines Lambda adds, whole
	// lines at a time and never concurrently. Nothing is kept if nil.
	Logs io.Writer
}

// AsyncConfig is a function's EventInvokeConfig.
type AsyncConfig struct {
	MaximumRetryAttempts *int // 0 to 2; 2 if nil

	// MaximumEventAge is at most six hours, and six hours if zero. AWS takes no
	// less than a minute; a shorter age is allowed here so that tests need not
	// wait for one.
	MaximumEventAge time.Duration

	OnSuccess, OnFailure Destination
}

const (
	defaultRegion      = "us-east-1"
	defaultAccountID   = "123456789012"
	defaultConcurrency = 1000
	defaultInitLimit   = 10 * time.Second
	defaultTimeout     = 3 * time.Second
	defaultMemorySize  = 128
	defaultRetries     = 2
	maximumEventAge    = 6 * time.Hour
	maximumTimeout     = 900 * time.Second
	environmentLimit   = 4 << 10
)

func (o Options) withDefaults() Options {
	o.Region = cmp.Or(o.Region, defaultRegion)
	o.AccountID = cmp.Or(o.AccountID, defaultAccountID)
	o.AccountConcurrency = cmp.Or(o.AccountConcurrency, defaultConcurrency)
	o.InitLimit = cmp.Or(o.InitLimit, defaultInitLimit)
	o.Delays.Retries[0] = cmp.Or(o.Delays.Retries[0], time.Minute)
	o.Delays.Retries[1] = cmp.Or(o.Delays.Retries[1], 2*time.Minute)
	o.Delays.ThrottleMin = cmp.Or(o.Delays.ThrottleMin, time.Second)
	o.Delays.ThrottleMax = cmp.Or(o.Delays.ThrottleMax, 5*time.Minute)
	return o
}

func (f Function) withDefaults() Function {
	f.Timeout = cmp.Or(f.Timeout, defaultTimeout)
	f.MemorySize = cmp.Or(f.MemorySize, defaultMemorySize)
	f.Async.MaximumEventAge = cmp.Or(f.Async.MaximumEventAge, maximumEventAge)
	if f.Async.MaximumRetryAttempts == nil {
		f.Async.MaximumRetryAttempts = new(defaultRetries)
	}
	if f.Logs == nil {
		f.Logs = io.Discard
	}
	f.Environment = maps.Clone(f.Environment)
	return f
}

// validate refuses what CreateFunction, PutFunctionConcurrency and
// PutFunctionEventInvokeConfig would, so that no test passes with a
// configuration that cannot be deployed.
func (f Function) validate() error {
	if !validFunctionName(f.Name) {
		return fmt.Errorf("function name %q: 1 to 64 letters, digits, hyphens and underscores", f.Name)
	}
	info, err := os.Stat(f.Bootstrap)
	if err != nil {
		return fmt.Errorf("finding the bootstrap: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("bootstrap %s is not an executable file", f.Bootstrap)
	}
	if f.Timeout < 0 || f.Timeout > maximumTimeout {
		return fmt.Errorf("timeout %s: at most %s", f.Timeout, maximumTimeout)
	}
	if f.MemorySize < 128 || f.MemorySize > 10240 {
		return fmt.Errorf("memory size %d MB: 128 to 10240", f.MemorySize)
	}
	if f.ReservedConcurrency != nil && *f.ReservedConcurrency < 0 {
		return fmt.Errorf("reserved concurrency %d is negative", *f.ReservedConcurrency)
	}
	if n := *f.Async.MaximumRetryAttempts; n < 0 || n > 2 {
		return fmt.Errorf("maximum retry attempts %d: 0 to 2", n)
	}
	if age := f.Async.MaximumEventAge; age < 0 || age > maximumEventAge {
		return fmt.Errorf("maximum event age %s: at most %s", age, maximumEventAge)
	}
	return f.validateEnvironment()
}

func (f Function) validateEnvironment() error {
	configured := map[string]string{}
	for name, value := range f.Environment {
		if isCredential(name) {
			continue
		}
		if !validVariableName(name) {
			return fmt.Errorf("environment variable %q: a letter, then letters, digits and underscores, two characters or more", name)
		}
		if isReserved(name) {
			return fmt.Errorf("environment variable %s is reserved: Lambda sets it", name)
		}
		configured[name] = value
	}
	// Lambda measures the variables together, as JSON.
	document, err := json.Marshal(configured)
	if err != nil {
		return fmt.Errorf("measuring the environment: %w", err)
	}
	if len(document) > environmentLimit {
		return fmt.Errorf("environment variables take %d bytes: Lambda allows %d", len(document), environmentLimit)
	}
	return nil
}

func validVariableName(name string) bool {
	for i, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return len(name) >= 2
}

func isCredential(name string) bool {
	switch name {
	case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN":
		return true
	}
	return false
}

// isReserved follows "Defined runtime environment variables" in the Developer
// Guide. Names such as AWS_ENDPOINT_URL are the function's own to set.
func isReserved(name string) bool {
	switch name {
	case "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
		"AWS_ACCESS_KEY", "AWS_SECRET_KEY":
		return true
	}
	return strings.HasPrefix(name, "AWS_LAMBDA_") && name != "AWS_LAMBDA_EXEC_WRAPPER"
}

func newFunction(f Function, o Options) (*function, error) {
	f = f.withDefaults()
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("configuring function %q: %w", f.Name, err)
	}
	path, err := filepath.Abs(f.Bootstrap)
	if err != nil {
		return nil, fmt.Errorf("configuring function %q: %w", f.Name, err)
	}
	f.Bootstrap = path
	return &function{
		Function: f,
		arn:      fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", o.Region, o.AccountID, f.Name),
	}, nil
}

func newFunctions(o Options) (map[string]*function, error) {
	if len(o.Functions) == 0 {
		return nil, errors.New("no function to serve")
	}
	all := map[string]*function{}
	for _, f := range o.Functions {
		fn, err := newFunction(f, o)
		if err != nil {
			return nil, err
		}
		if all[f.Name] != nil {
			return nil, fmt.Errorf("function %q is configured twice", f.Name)
		}
		all[f.Name] = fn
	}
	return all, nil
}
