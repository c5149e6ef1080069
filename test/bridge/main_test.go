package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/test/bed"
)

// shared is what all tests run on. Each has a region of its own meanwhile, which in moto shares nothing with another.
var shared struct {
	moto      string
	bootstrap string // does what its event says: see lambdalocal/testdata
	regions   chan string
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (int, error) {
	folder, err := os.MkdirTemp("", "bridge")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(folder)
	shared.bootstrap = filepath.Join(folder, "bootstrap")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", shared.bootstrap, "../lambdalocal/testdata/bootstrap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("building the test function: %w\n%s", err, out)
	}
	moto, err := bed.StartMoto(context.Background(), folder)
	if err != nil {
		return 1, err
	}
	shared.moto = moto.URL
	regions := []string{"us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-south-1", "sa-east-1"}
	shared.regions = make(chan string, len(regions))
	for _, r := range regions {
		shared.regions <- r
	}
	code := 1
	if err = createRole(moto.URL); err == nil {
		code = m.Run()
	}
	if code != 0 {
		for line := range strings.Lines(moto.Log()) {
			if !strings.HasSuffix(line, " 200 -\n") {
				fmt.Fprint(os.Stderr, "moto: ", line)
			}
		}
	}
	return code, errors.Join(err, moto.Stop())
}

// createRole makes the role that functions have. Moto demands that there is one.
func createRole(moto string) error {
	form := url.Values{"Action": {"CreateRole"}, "Version": {"2010-05-08"}, "RoleName": {"fn"}, "AssumeRolePolicyDocument": {
		`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}}`}}
	req, err := http.NewRequest(http.MethodPost, moto, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("creating a role: %s", resp.Status)
	}
	return nil
}
