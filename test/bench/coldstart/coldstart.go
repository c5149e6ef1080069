// Package coldstart measures what the start of a Lambda function's binary costs, on the local Lambda service.
package coldstart

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

	"github.com/castai/kops-spot/test/lambdalocal"
	"github.com/castai/kops-spot/test/testenv"
)

// event is one that kops-spot has no rule for: it answers at once, having asked nobody.
const event = `{"version":"0","id":"b1","detail-type":"EC2 Spot Instance Request Fulfillment","source":"aws.ec2",` +
	`"account":"123456789012","time":"2026-01-01T00:00:00Z","region":"us-east-1","resources":[],"detail":{"instance-id":"i-0123456789abcdef0"}}`

// Binary is a function to start.
type Binary struct {
	Name      string
	Bootstrap string // path, for this machine
	Zips      map[string]string
	Env       map[string]string
}

// Start is one cold start.
type Start struct {
	Init   time.Duration // from exec until it asks for its first event
	Answer time.Duration // from exec until it has answered that and asks for the next
	Memory int           // MB, the most it had resident
}

// Measure starts each binary n times, in turn.
func Measure(ctx context.Context, binaries []Binary, n int) ([][]Start, error) {
	var functions []lambdalocal.Function
	for _, b := range binaries {
		functions = append(functions, lambdalocal.Function{Name: b.Name, Bootstrap: b.Bootstrap, Environment: b.Env,
			Timeout: time.Minute, MemorySize: 256})
	}
	s, err := lambdalocal.New(lambdalocal.Options{Functions: functions})
	if err != nil {
		return nil, fmt.Errorf("measuring cold starts: %w", err)
	}
	defer s.Close()
	starts := make([][]Start, len(binaries))
	for i := range n + 1 {
		for j, b := range binaries {
			s.KillAll()
			res, err := s.Invoke(ctx, b.Name, lambdalocal.RequestResponse, []byte(event))
			if err == nil && res.FunctionError != "" {
				err = fmt.Errorf("%s: %s", res.FunctionError, res.Payload)
			}
			if err != nil {
				return nil, fmt.Errorf("starting %s: %w", b.Name, err)
			}
			if i == 0 {
				continue // the binary's pages are read from the disk
			}
			r := res.Report
			starts[j] = append(starts[j], Start{Init: r.InitDuration, Answer: r.InitDuration + r.Duration, Memory: r.MaxMemoryUsed})
		}
	}
	return starts, nil
}

// Build builds kops-spot and the empty handler. With zips, kops-spot is what `make dist` makes, and both are zipped as
// it zips; else it is what `make build` makes.
func Build(ctx context.Context, dir string, zips bool) (kopsSpot, empty Binary, err error) {
	bootstrap, err := testenv.BuildBootstrap(ctx)
	if err != nil {
		return kopsSpot, empty, err
	}
	root := filepath.Dir(filepath.Dir(bootstrap))
	kopsSpot = Binary{Name: "kops-spot", Bootstrap: bootstrap}
	empty = Binary{Name: "empty", Bootstrap: filepath.Join(dir, runtime.GOARCH, "bootstrap")}
	if kopsSpot.Env, err = settings(); err != nil {
		return kopsSpot, empty, err
	}
	architectures := []string{runtime.GOARCH}
	if zips {
		architectures = []string{"amd64", "arm64"}
		if err := run(ctx, root, nil, "make", "dist"); err != nil {
			return kopsSpot, empty, err
		}
		kopsSpot.Bootstrap = filepath.Join(root, "dist", runtime.GOARCH, "bootstrap")
		kopsSpot.Zips, empty.Zips = map[string]string{}, map[string]string{}
	}
	for _, arch := range architectures {
		out := filepath.Join(dir, arch, "bootstrap")
		// The Makefile's flags.
		err := run(ctx, filepath.Join(root, "test"), []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOWORK=off"},
			"go", "build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc", "-ldflags", "-s -w -buildid=", "-o", out, "./bench/empty")
		if err != nil {
			return kopsSpot, empty, err
		}
		if !zips {
			continue
		}
		empty.Zips[arch] = filepath.Join(dir, "empty-"+arch+".zip")
		if err := run(ctx, root, nil, "go", "run", "./tools/zip", empty.Zips[arch], out, filepath.Join(root, "LICENSE")); err != nil {
			return kopsSpot, empty, err
		}
		made, err := filepath.Glob(filepath.Join(root, "dist", "*-"+arch+".zip"))
		if err != nil {
			return kopsSpot, empty, err
		}
		if len(made) != 1 {
			return kopsSpot, empty, fmt.Errorf("looking for the zip for %s: there are %q", arch, made)
		}
		kopsSpot.Zips[arch] = made[0]
	}
	return kopsSpot, empty, nil
}

// settings are those of a function that logs in as kOps' users do.
func settings() (map[string]string, error) {
	ca, _, err := cert.GenerateSelfSignedCertKey("api.internal.prod.example.com", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return map[string]string{
		"KOPS_SPOT_CLUSTER": "prod.example.com",
		"KOPS_SPOT_MODE":    "act",
		"KOPS_SPOT_LOGIN":   "iam",
		"KOPS_SPOT_SERVER":  "https://api.prod.example.com",
		"KOPS_SPOT_CA":      base64.StdEncoding.EncodeToString(ca),
	}, nil
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
