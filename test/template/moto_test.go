package template

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	kopsaws "github.com/castai/kops-spot/internal/aws"
)

// settingsFor configures the SDK's clients for moto in a region.
func settingsFor(region string) aws.Config {
	return kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: &shared.moto.URL,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
}

// query sends a request with AWS's Query protocol to moto and reads the response into out, if not nil. moto reads the
// service and region from the credential's scope and does not check signatures.
func query(ctx context.Context, service, region, action string, form url.Values, out any) error {
	form.Set("Action", action)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, shared.moto.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return answer(req, service, region, out)
}

func answer(req *http.Request, service, region string, out any) error {
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=id/20260101/%s/%s/aws4_request, SignedHeaders=host, Signature=0", region, service))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s\n%s", req.Method, req.URL, res.Status, body)
	case out == nil:
		return nil
	}
	return xml.Unmarshal(body, out)
}

// deploy creates the stack of one of the sets in a region of its own in moto.
func deploy(t *testing.T, set, region string) {
	t.Helper()
	must(t, putCode())
	body, err := shared.Templates[set].Settled(sets[set])
	must(t, err)
	form := url.Values{"StackName": {"kops-spot"}, "TemplateBody": {string(body)},
		"Capabilities.member.1": {"CAPABILITY_NAMED_IAM"}}
	n := 0
	for name, value := range sets[set] {
		n++
		form.Set(fmt.Sprintf("Parameters.member.%d.ParameterKey", n), name)
		form.Set(fmt.Sprintf("Parameters.member.%d.ParameterValue", n), value)
	}
	if err := query(t.Context(), "cloudformation", region, "CreateStack", form, nil); err != nil {
		t.Fatalf("%v\n%s", err, shared.moto.Log())
	}
	var stacks struct {
		Status []string `xml:"DescribeStacksResult>Stacks>member>StackStatus"`
	}
	if err := query(t.Context(), "cloudformation", region, "DescribeStacks", url.Values{"StackName": {"kops-spot"}},
		&stacks); err != nil {
		t.Fatal(err)
	}
	if len(stacks.Status) != 1 || stacks.Status[0] != "CREATE_COMPLETE" {
		t.Fatalf("the stack is %q", stacks.Status)
	}
}

// putCode uploads an object to the place of the function's code, once.
var putCode = sync.OnceValue(func() error {
	ctx := context.Background()
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	if _, err := w.Create("bootstrap"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	path := strings.TrimPrefix(Code, "s3:/")
	bucket := path[:strings.LastIndex(path, "/")]
	for _, put := range []struct {
		at   string
		what []byte
	}{{bucket, nil}, {path, archive.Bytes()}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, shared.moto.URL+put.at, bytes.NewReader(put.what))
		if err != nil {
			return err
		}
		if err := answer(req, "s3", "us-east-1", nil); err != nil {
			return err
		}
	}
	return nil
})
