package lambdalocal

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigurationRefused(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Options, *Function)
		want   string
	}{
		"name":             {func(_ *Options, f *Function) { f.Name = "a:b" }, `function name "a:b"`},
		"long name":        {func(_ *Options, f *Function) { f.Name = strings.Repeat("a", 65) }, "1 to 64"},
		"no bootstrap":     {func(_ *Options, f *Function) { f.Bootstrap = "/nonexistent" }, "finding the bootstrap"},
		"not executable":   {func(_ *Options, f *Function) { f.Bootstrap = plain }, "not an executable file"},
		"timeout":          {func(_ *Options, f *Function) { f.Timeout = 901 * time.Second }, "at most 15m0s"},
		"memory":           {func(_ *Options, f *Function) { f.MemorySize = 127 }, "128 to 10240"},
		"retries":          {func(_ *Options, f *Function) { f.Async.MaximumRetryAttempts = new(3) }, "0 to 2"},
		"age":              {func(_ *Options, f *Function) { f.Async.MaximumEventAge = 6*time.Hour + 1 }, "at most 6h0m0s"},
		"concurrency":      {func(_ *Options, f *Function) { f.ReservedConcurrency = new(-1) }, "negative"},
		"too much of it":   {func(o *Options, f *Function) { o.AccountConcurrency = 10; f.ReservedConcurrency = new(11) }, "1 more than"},
		"reserved name":    {variable("AWS_REGION", "x"), "AWS_REGION is reserved"},
		"reserved prefix":  {variable("AWS_LAMBDA_RUNTIME_API", "x"), "AWS_LAMBDA_RUNTIME_API is reserved"},
		"variable name":    {variable("1A", "x"), `"1A"`},
		"one-letter name":  {variable("A", "x"), "two characters"},
		"4 KB":             {variable("BIG", strings.Repeat("x", 4096-len(`{"BIG":""}`)+1)), "4097 bytes"},
		"same name twice":  {func(o *Options, f *Function) { o.Functions = []Function{*f} }, "twice"},
		"second is faulty": {func(o *Options, f *Function) { g := *f; g.Name = ""; o.Functions = []Function{g} }, "function name"},
	} {
		options := Options{}
		fn := Function{Name: "fn", Bootstrap: testBootstrap()}
		c.change(&options, &fn)
		options.Functions = append(options.Functions, fn)
		s, err := New(options)
		if err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", name, err, c.want)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("accepted without a function")
	}
}

func variable(name, value string) func(*Options, *Function) {
	return func(_ *Options, f *Function) { f.Environment = map[string]string{name: value} }
}

func TestEnvironmentOfExactly4KB(t *testing.T) {
	t.Parallel()
	testService(t, variable("BIG", strings.Repeat("x", 4096-len(`{"BIG":""}`))))
}

func TestVariables(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DEVELOPER", "x")
	s := testService(t, func(o *Options, f *Function) {
		o.Region = "eu-west-1"
		f.MemorySize = 256
		f.Environment = map[string]string{"KOPS_SPOT_MODE": "act", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
	})
	got := variablesOf(t, s)
	if api := got["AWS_LAMBDA_RUNTIME_API"]; !strings.HasPrefix(api, "127.0.0.1:") {
		t.Errorf("AWS_LAMBDA_RUNTIME_API is %q", api)
	}
	delete(got, "AWS_LAMBDA_RUNTIME_API")
	want := map[string]string{
		"AWS_LAMBDA_FUNCTION_NAME":        "fn",
		"AWS_LAMBDA_FUNCTION_VERSION":     "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/fn",
		"AWS_LAMBDA_LOG_STREAM_NAME":      "local/[$LATEST]",
		"AWS_EXECUTION_ENV":               "AWS_Lambda_provided.al2023",
		"AWS_REGION":                      "eu-west-1",
		"AWS_DEFAULT_REGION":              "eu-west-1",
		"_HANDLER":                        "bootstrap",
		"LAMBDA_TASK_ROOT":                filepath.Dir(testBootstrap()),
		"LAMBDA_RUNTIME_DIR":              "/var/runtime",
		"PATH":                            "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
		"LANG":                            "en_US.UTF-8",
		"TZ":                              ":UTC",
		"AWS_ACCESS_KEY_ID":               "testing",
		"AWS_SECRET_ACCESS_KEY":           "testing",
		"AWS_SESSION_TOKEN":               "testing",
		"KOPS_SPOT_MODE":                  "act",
		"AWS_ENDPOINT_URL":                "http://127.0.0.1:1",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	equal(t, "working directory", identify(t, s).Folder, filepath.Dir(testBootstrap()))
}

func TestCredentialsOfTheCaller(t *testing.T) {
	t.Parallel()
	s := testService(t, func(_ *Options, f *Function) {
		f.Environment = map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}
	})
	got := variablesOf(t, s)
	equal(t, "AWS_ACCESS_KEY_ID", got["AWS_ACCESS_KEY_ID"], "AKIA")
	equal(t, "AWS_SECRET_ACCESS_KEY", got["AWS_SECRET_ACCESS_KEY"], "s")
	if token, set := got["AWS_SESSION_TOKEN"]; set {
		t.Errorf("a session token nobody gave: %q", token)
	}
}

func variablesOf(t *testing.T, s *Service) map[string]string {
	t.Helper()
	var list []string
	decode(t, invoke(t, s, `{"do":"environment"}`).Payload, &list)
	all := map[string]string{}
	for _, pair := range list {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	return all
}
