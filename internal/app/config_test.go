package app

import (
	"encoding/base64"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"
)

func testCA(t *testing.T) string {
	t.Helper()
	pem, _, err := cert.GenerateSelfSignedCertKey("api.internal.prod.example.com", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}

func TestParseConfig(t *testing.T) {
	ca := testCA(t)
	for name, c := range map[string]struct {
		env  []string
		want Config
	}{
		"a token and a private CA": {
			env: []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=token-file:/var/token",
				"KOPS_SPOT_SERVER=https://api.prod.example.com", "KOPS_SPOT_CA=" + ca, "PATH=/bin", "AWS_REGION=eu-west-1"},
			want: Config{Cluster: "prod.example.com", Mode: Act, tokenFile: "/var/token"},
		},
		"a CA in base64": {
			env: []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=observe", "KOPS_SPOT_LOGIN=token-file:/var/token",
				"KOPS_SPOT_SERVER=https://10.0.0.1", "KOPS_SPOT_CA=" + base64.StdEncoding.EncodeToString([]byte(ca)), "KOPS_SPOT_TLS_SERVER_NAME=localhost"},
			want: Config{Cluster: "prod.example.com", Mode: Observe, tokenFile: "/var/token"},
		},
		"a kubeconfig": {
			env:  []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=observe", "KOPS_SPOT_LOGIN=kubeconfig:/root/.kube/config"},
			want: Config{Cluster: "prod.example.com", Mode: Observe, kubeconfig: "/root/.kube/config"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig(c.env)
			if err != nil {
				t.Fatal(err)
			}
			if got.Cluster != c.want.Cluster || got.Mode != c.want.Mode || got.tokenFile != c.want.tokenFile || got.kubeconfig != c.want.kubeconfig {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestTLSServerName(t *testing.T) {
	base := []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=token-file:/t", "KOPS_SPOT_SERVER=https://nlb.elb.amazonaws.com"}
	for _, c := range []struct {
		more []string
		want string
	}{
		{[]string{"KOPS_SPOT_CA=" + testCA(t)}, "api.internal.prod.example.com"},
		{nil, ""}, // a public certificate has the host's name
		{[]string{"KOPS_SPOT_TLS_SERVER_NAME=x"}, "x"},
	} {
		got, err := ParseConfig(append(base, c.more...))
		if err != nil || got.Endpoint.TLSServerName != c.want {
			t.Errorf("got %q, %v; want %q", got.Endpoint.TLSServerName, err, c.want)
		}
	}
}

// TestEveryMistakeIsNamedAtOnce, with what is wanted instead.
func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"nothing is set": {nil, []string{"KOPS_SPOT_CLUSTER: set it to the kOps cluster's name", "KOPS_SPOT_MODE: set it to observe", "KOPS_SPOT_LOGIN: set it to token-file:"}},
		"everything is wrong": {
			[]string{"KOPS_SPOT_CLUSTER=prod", "KOPS_SPOT_MODE=dry-run", "KOPS_SPOT_LOGIN=token-file:/t", "KOPS_SPOT_SERVER=api.prod.example.com", "KOPS_SPOT_CA=%%%", "KOPS_SPOT_MOD=act"},
			[]string{`KOPS_SPOT_CLUSTER: "prod" is no kOps cluster name`, `not "dry-run"`, "KOPS_SPOT_SERVER: set it to the API server's URL", "KOPS_SPOT_CA: set it to", "KOPS_SPOT_MOD: there is no such setting"},
		},
		"a CA without a certificate": {
			[]string{"KOPS_SPOT_LOGIN=token-file:/t", "KOPS_SPOT_CA=-----BEGIN CERTIFICATE-----"},
			[]string{"KOPS_SPOT_CA: there is no certificate in it"},
		},
		"a server beside a kubeconfig": {
			[]string{"KOPS_SPOT_LOGIN=kubeconfig:/k", "KOPS_SPOT_SERVER=https://x"},
			[]string{"KOPS_SPOT_SERVER: take it away"},
		},
		"http": {[]string{"KOPS_SPOT_LOGIN=token-file:/t", "KOPS_SPOT_SERVER=http://api"}, []string{"KOPS_SPOT_SERVER: set it to"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig(c.env)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("nothing says %q in:\n%v", want, err)
				}
			}
		})
	}
}
