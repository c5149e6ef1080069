package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/spot"
)

func TestClusterName(t *testing.T) {
	const prod, dev = "prod.example.com", "dev.example.com"
	for name, c := range map[string]struct {
		given, own, context string
		want, err           string
	}{
		"given":                                {given: prod, want: prod},
		"given, and the same as the cluster's": {given: prod, own: prod, context: "test", want: prod},
		"given, but not the cluster's":         {given: prod, own: dev, err: "wrong cluster: expected prod.example.com, but the kubeconfig context c connects to dev.example.com"},
		"given, and another in the kubeconfig": {given: prod, context: dev, want: prod},
		"the cluster's own":                    {own: prod, context: dev, want: prod},
		"the kubeconfig's":                     {context: prod, want: prod},
		"the kubeconfig of an EKS cluster":     {context: "arn:aws:eks:us-east-1:123456789012:cluster/prod.x", err: "set it with --cluster"},
		"the kubeconfig has no DNS name":       {context: "kubernetes", err: "set it with --cluster"},
		"none":                                 {err: "set it with --cluster"},
		"given, but no DNS name":               {given: "prod", own: prod, err: `"prod" is not the name of a kOps cluster`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clusterName(c.given, c.own, kube.Context{Name: "c", Cluster: c.context})
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}

// TestStateStore: the flag decides, then the cluster, then the variable.
func TestStateStore(t *testing.T) {
	const ours = `"addons.k8s.io/core": "{\"channel\": \"s3://own/kops/prod.example.com/addons/bootstrap-channel.yaml\"}"`
	for name, c := range map[string]struct{ flag, annotation, want string }{
		"the flag":     {"s3://given/folder/", ours, "given/folder"},
		"the cluster":  {"", ours, "own/kops"},
		"the variable": {"", "", "variable"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"annotations": {%s}}}`, c.annotation)
			}))
			t.Cleanup(srv.Close)
			console := &console{environ: []string{"KUBECONFIG=" + kubeconfig(t, srv.URL), "KOPS_STATE_STORE=s3://variable"}}
			k, err := console.connect(t.Context(), kubeFlags{cluster: "prod.example.com", store: c.flag})
			if k.store != c.want || err != nil {
				t.Errorf("got %q, %v; want %q", k.store, err, c.want)
			}
		})
	}
}

// TestWorkers: the instance's tag names the group, since not every group has the label.
func TestWorkers(t *testing.T) {
	at := session{nodes: []onboard.NodeInstance{{Node: "a", ID: "i-a", OS: "Ubuntu", Ready: true}, {Node: "b", ID: "i-b", Group: "by-label"},
		{Node: "c", ID: "i-c", ControlPlane: true}},
		tagged: []awsadmin.Instance{{ID: "i-a", Spot: true, Tags: map[string]string{spot.TagInstanceGroup: "by-tag"}}, {ID: "i-b"}, {ID: "i-c"}, {ID: "i-d"}}}
	want := []install.Worker{{Node: "a", Group: "by-tag", OS: "Ubuntu", Ready: true, Spot: true}, {Node: "b", Group: "by-label"}}
	if got := at.site(nil).Workers; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestInstanceOf(t *testing.T) {
	for id, c := range map[string]struct {
		label string
		want  instance
		err   string
	}{
		"aws:///us-east-1a/i-0a1b2c3d4e5f60718":       {want: instance{"i-0a1b2c3d4e5f60718", "us-east-1"}},
		"aws:///us-west-2-lax-1a/i-0a1b2c3d":          {want: instance{"i-0a1b2c3d", "us-west-2"}},
		"aws:///us-gov-west-1b/i-0a1b2c3d":            {want: instance{"i-0a1b2c3d", "us-gov-west-1"}},
		"aws:///eu-west-1a/i-0a1b2c3d":                {label: "eu-central-1", want: instance{"i-0a1b2c3d", "eu-central-1"}},
		"aws:///somewhere/i-0a1b2c3d":                 {want: instance{"i-0a1b2c3d", ""}},
		"":                                            {err: "has an empty spec.providerID: if it has just registered, try again in a minute"},
		"gce://project/us-central1-a/i-0a1b2c3d":      {err: "is not an EC2 instance"},
		"aws:///us-east-1a/fargate-ip-10-0-0-1":       {err: "is not an EC2 instance"},
		"aws:///us-east-1a/i-0a1b2c3d; rm -rf /tmp/x": {err: "is not an EC2 instance"},
	} {
		n := spot.Node{Name: "n", ProviderID: id, Labels: map[string]string{"topology.kubernetes.io/region": c.label}}
		got, err := instanceOf(n)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %+v, %v; want %+v, %q", id, got, err, c.want, c.err)
		}
	}
}

// TestAWSConfig finds credentials like the AWS CLI, and says at once if there are none.
func TestAWSConfig(t *testing.T) {
	for name, c := range map[string]struct{ profile, err string }{
		"none": {"", "no AWS credentials: set credentials"},
		"a process that waits for a person": {"credential_process = sh -c 'sleep 5.5; " +
			`echo "{\"Version\": 1, \"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"s\"}"'`, ""},
		"MFA without a terminal": {"role_arn = arn:aws:iam::123456789012:role/admin\nsource_profile = base\n" +
			"mfa_serial = arn:aws:iam::123456789012:mfa/me\n[profile base]\naws_access_key_id = AKIA\naws_secret_access_key = s", "needs an MFA token: run this at a terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte("[default]\n"+c.profile+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AWS_CONFIG_FILE", file)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file+".none")
			for _, v := range []string{"AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
				t.Setenv(v, "")
			}
			began := time.Now()
			_, err := (&console{stdin: strings.NewReader("")}).awsConfig(t.Context(), "eu-west-1")
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if c.err != "" && time.Since(began) > 4*time.Second {
				t.Errorf("the error took %s", time.Since(began))
			}
		})
	}
	var prompt strings.Builder
	token, err := (&console{stdin: strings.NewReader("123456\n"), stderr: &prompt}).mfaToken()
	if token != "123456" || err != nil || prompt.String() == "" {
		t.Errorf("got the token %q, %v", token, err)
	}
}
