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
			env: []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=file:/var/token",
				"KOPS_SPOT_SERVER=https://api.prod.example.com", "KOPS_SPOT_CA=" + ca, "PATH=/bin", "AWS_REGION=eu-west-1"},
			want: Config{Cluster: "prod.example.com", Mode: Act, login: location{inFile, "/var/token"}},
		},
		"a CA in base64": {
			env: []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=observe", "KOPS_SPOT_LOGIN=file:/var/token",
				"KOPS_SPOT_SERVER=https://10.0.0.1", "KOPS_SPOT_CA=" + base64.StdEncoding.EncodeToString([]byte(ca))},
			want: Config{Cluster: "prod.example.com", Mode: Observe, login: location{inFile, "/var/token"}},
		},
		"aws-iam-authenticator": {
			env:  []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=iam", "KOPS_SPOT_SERVER=https://api"},
			want: Config{Cluster: "prod.example.com", Mode: Act, login: location{byIAM, "prod.example.com"}},
		},
		"a separate cluster ID": {
			env:  []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=iam:prod", "KOPS_SPOT_SERVER=https://api"},
			want: Config{Cluster: "prod.example.com", Mode: Act, login: location{byIAM, "prod"}},
		},
		"a secret": {
			env: []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_SERVER=https://api",
				"KOPS_SPOT_LOGIN=secretsmanager:arn:aws:secretsmanager:us-east-1:123456789012:secret:cast", "KOPS_SPOT_CA=ssm:/cast/ca"},
			want: Config{Cluster: "prod.example.com", Mode: Act, login: location{inSecret, "arn:aws:secretsmanager:us-east-1:123456789012:secret:cast"}},
		},
		"a kubeconfig": {
			env:  []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=observe", "KOPS_SPOT_LOGIN=kubeconfig:/root/.kube/config"},
			want: Config{Cluster: "prod.example.com", Mode: Observe, login: location{byKubeconfig, "/root/.kube/config"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig(c.env)
			if err != nil {
				t.Fatal(err)
			}
			if got.Cluster != c.want.Cluster || got.Mode != c.want.Mode || got.login != c.want.login {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestConfigMistakes: the error lists all mistakes with the valid values.
func TestConfigMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"no settings": {nil, []string{"KOPS_SPOT_CLUSTER: set it to the name of the kOps cluster", "KOPS_SPOT_MODE: set it to observe", "KOPS_SPOT_LOGIN: set it to iam or iam:<cluster ID>"}},
		"all wrong": {
			[]string{"KOPS_SPOT_CLUSTER=prod", "KOPS_SPOT_MODE=dry-run", "KOPS_SPOT_LOGIN=file:/t", "KOPS_SPOT_SERVER=api.prod.example.com", "KOPS_SPOT_CA=%%%", "KOPS_SPOT_MOD=act"},
			[]string{`KOPS_SPOT_CLUSTER: "prod" is not the name of a kOps cluster`, `not "dry-run"`, "KOPS_SPOT_SERVER: set it to the API server's URL", "KOPS_SPOT_CA: set it to", "KOPS_SPOT_MOD: unknown setting"},
		},
		"locations without a name": {
			[]string{"KOPS_SPOT_LOGIN=secretsmanager:", "KOPS_SPOT_CA=ssm:"},
			[]string{"KOPS_SPOT_LOGIN: add a name after secretsmanager:", "KOPS_SPOT_CA: add a name after ssm:"},
		},
		"a CA without a certificate": {
			[]string{"KOPS_SPOT_LOGIN=file:/t", "KOPS_SPOT_CA=-----BEGIN CERTIFICATE-----"},
			[]string{"KOPS_SPOT_CA: no certificate found"},
		},
		"a server and a kubeconfig": {
			[]string{"KOPS_SPOT_LOGIN=kubeconfig:/k", "KOPS_SPOT_SERVER=https://x"},
			[]string{"KOPS_SPOT_SERVER: remove it"},
		},
		"http": {[]string{"KOPS_SPOT_LOGIN=file:/t", "KOPS_SPOT_SERVER=http://api"}, []string{"KOPS_SPOT_SERVER: set it to"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig(c.env)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in:\n%v", want, err)
				}
			}
		})
	}
}
