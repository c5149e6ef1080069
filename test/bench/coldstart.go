package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"k8s.io/client-go/util/cert"

	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// ignoredEvent is an event that kops-spot ignores, without any request.
const ignoredEvent = `{"version":"0","id":"b1","detail-type":"EC2 Spot Instance Request Fulfillment","source":"aws.ec2",` +
	`"account":"123456789012","time":"2026-01-01T00:00:00Z","region":"us-east-1","resources":[],"detail":{"instance-id":"i-0123456789abcdef0"}}`

// binary is a function to start.
type binary struct {
	title     string
	bootstrap string // path, for this machine
	env       map[string]string
	zips      []float64 // MB, by architecture, if the zips are measured
	// One element per cold start.
	init   []float64 // ms from exec until the process requests its first event
	answer []float64 // ms from exec until it has responded to that event
	memory []float64 // MB, peak resident memory
}

var architectures = []string{"amd64", "arm64"}

// cold measures the start of an execution environment.
func (b *bench) cold(ctx context.Context) ([]table, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binaries, err := buildBinaries(ctx, dir, b.zips)
	if err != nil {
		return nil, err
	}
	if err := startBinaries(ctx, binaries, b.starts); err != nil {
		return nil, err
	}
	t := table{title: fmt.Sprintf("median of %d cold starts, with an ignored event", b.starts), columns: []column{
		{name: "init", unit: milliseconds}, {name: "first response", unit: milliseconds},
		{name: "resident memory, MB"}}}
	if b.zips {
		for _, arch := range architectures {
			t.columns = append(t.columns, column{name: "zip for " + arch, unit: megabytes})
		}
	}
	for _, f := range binaries {
		t.rows = append(t.rows, row{f.title,
			append([]float64{median(f.init), median(f.answer), median(f.memory)}, f.zips...)})
	}
	return []table{t}, nil
}

// startBinaries starts each binary n times on the local Lambda service, in turn.
func startBinaries(ctx context.Context, binaries []binary, n int) error {
	var functions []fakelambda.Function
	for i, b := range binaries {
		functions = append(functions, fakelambda.Function{Name: fmt.Sprint("function-", i), Bootstrap: b.bootstrap,
			Environment: b.env,
			Timeout:     time.Minute, MemorySize: 256})
	}
	s, err := fakelambda.New(fakelambda.Options{Functions: functions})
	if err != nil {
		return fmt.Errorf("measuring cold starts: %w", err)
	}
	defer s.Close()
	for round := range n + 1 {
		for i := range binaries {
			b := &binaries[i]
			s.KillAll()
			res, err := s.Invoke(ctx, functions[i].Name, fakelambda.RequestResponse, []byte(ignoredEvent))
			if err == nil && res.FunctionError != "" {
				err = fmt.Errorf("%s: %s", res.FunctionError, res.Payload)
			}
			if err != nil {
				return fmt.Errorf("starting %s: %w", b.title, err)
			}
			if round == 0 {
				continue // it read the binary from disk
			}
			r := res.Report
			b.init = append(b.init, float64(r.InitDuration.Microseconds())/1000)
			b.answer = append(b.answer, float64((r.InitDuration+r.Duration).Microseconds())/1000)
			b.memory = append(b.memory, float64(r.MaxMemoryUsed))
		}
	}
	return nil
}

// buildBinaries builds kops-spot and the empty function: as `make dist` if zips are measured, else as `make build`.
func buildBinaries(ctx context.Context, dir string, zips bool) ([]binary, error) {
	bootstrap, err := testenv.BuildBootstrap(ctx)
	if err != nil {
		return nil, err
	}
	env, err := functionEnv()
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(filepath.Dir(bootstrap))
	kopsSpot := binary{title: "kops-spot", bootstrap: bootstrap, env: env}
	empty := binary{title: "empty Go function", bootstrap: filepath.Join(dir, runtime.GOARCH, "bootstrap")}
	built := []string{runtime.GOARCH}
	if zips {
		built = architectures
		kopsSpot.bootstrap = filepath.Join(root, "dist", runtime.GOARCH, "bootstrap")
		if err := command(ctx, root, nil, "make", "dist"); err != nil {
			return nil, err
		}
	}
	for _, arch := range built {
		out := filepath.Join(dir, arch, "bootstrap")
		// The Makefile's flags.
		err := command(ctx, filepath.Join(root, "test"),
			[]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOWORK=off"},
			"go", "build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc", "-ldflags", "-s -w -buildid=", "-o",
			out, "./bench/empty")
		if err != nil {
			return nil, err
		}
		if !zips {
			continue
		}
		zip := filepath.Join(dir, "empty-"+arch+".zip")
		if err := command(ctx, root, nil, "go", "run", "./tools/zip", zip, out,
			filepath.Join(root, "LICENSE")); err != nil {
			return nil, err
		}
		if err := empty.measureZip(zip); err != nil {
			return nil, err
		}
		if err := kopsSpot.measureZip(filepath.Join(root, "dist", "*-"+arch+".zip")); err != nil {
			return nil, err
		}
	}
	return []binary{kopsSpot, empty}, nil
}

func (b *binary) measureZip(pattern string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("expected one file %s, found %q", pattern, files)
	}
	file, err := os.Stat(files[0])
	if err != nil {
		return err
	}
	b.zips = append(b.zips, float64(file.Size())/1e6)
	return nil
}

// functionEnv returns the environment of a function that authenticates with its IAM role, as on kOps.
func functionEnv() (map[string]string, error) {
	ca, _, err := cert.GenerateSelfSignedCertKey("api.internal.prod.example.com", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("creating a certificate: %w", err)
	}
	return map[string]string{
		"KOPS_SPOT_CLUSTER": clusterName,
		"KOPS_SPOT_MODE":    "act",
		"KOPS_SPOT_LOGIN":   "iam",
		"KOPS_SPOT_SERVER":  "https://api.prod.example.com",
		"KOPS_SPOT_CA":      base64.StdEncoding.EncodeToString(ca),
	}, nil
}

func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
