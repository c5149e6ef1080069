package install

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// TestPrivateReason by both versions of the specification.
func TestPrivateReason(t *testing.T) {
	for text, want := range map[string]string{
		"spec: {kubernetesApiAccess: [0.0.0.0/0, '::/0'], api: {loadBalancer: {type: Public}}}": "",
		"spec: {api: {dns: {}}}":                          "",
		"spec: {api: {loadBalancer: {type: Internal}}}":   "the API's load balancer is internal",
		"spec: {kubernetesApiAccess: [203.0.113.0/24]}":   "allows only 203.0.113.0/24",
		"spec: {api: {access: [10.0.0.0/8, 1.2.3.4/32]}}": "allows only 10.0.0.0/8, 1.2.3.4/32",
	} {
		var s spec
		if err := yaml.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		if got := s.privateReason(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestReachable: what counts is the server that the function connects to, on the function's path. Advice that was
// followed is not repeated.
func TestReachable(t *testing.T) {
	const tunnel = "https://127.0.0.1:8443"
	through := func(*http.Request) (*url.URL, error) { return url.Parse("http://user:secret@proxy:3128") }
	for name, c := range map[string]struct {
		login rest.Config
		given map[string]string
		want  change.Level // empty for no finding
		says  string
	}{
		"a tunnel":                           {rest.Config{Host: tunnel}, nil, change.Warn, "127.0.0.1 is this computer: a tunnel or a test --set Server=…"},
		"a tunnel, and the server":           {rest.Config{Host: tunnel}, map[string]string{"Server": "https://203.0.113.7"}, change.OK, "203.0.113.7 has a public address"},
		"a public address":                   {rest.Config{Host: "https://203.0.113.7"}, nil, change.OK, "203.0.113.7 has a public address"},
		"through the operator's proxy":       {rest.Config{Host: "https://203.0.113.7", Proxy: through}, nil, change.Warn, "through the proxy proxy:3128, so whether Lambda can is not known"},
		"through the function's proxy":       {rest.Config{Host: tunnel}, map[string]string{"HttpsProxy": "http://proxy:3128"}, change.OK, "through a proxy; kops-spot check tests it"},
		"in subnets, which CheckNetwork has": {rest.Config{Host: tunnel}, map[string]string{"SubnetIds": "subnet-1"}, "", ""},
	} {
		d := Discovery{}
		if err := d.network(t.Context(), Site{Login: &c.login, Given: c.given}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		switch {
		case c.want == "" && len(d.Findings) == 0:
		case len(d.Findings) != 1 || d.Findings[0].Level != c.want || !strings.Contains(d.Findings[0].Detail+" "+d.Findings[0].Advice, c.says) ||
			strings.Contains(d.Findings[0].Detail, "secret"):
			t.Errorf("%s: %+v, want %s %q", name, d.Findings, c.want, c.says)
		}
	}
}

func TestTooOld(t *testing.T) {
	for v, want := range map[string]bool{"v1.21.14": true, "v1.9.0-eks-1": true, "v1.22.0": false, "v1.37.2+k3s1": false, "v2.0.0": false, "devel": false} {
		if got := tooOld(v); got != want {
			t.Errorf("%s: %v, want %v", v, got, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	all := []awsadmin.Subnet{{ID: "s-public", Zone: "a"}, {ID: "s-1", Zone: "a", Private: true}, {ID: "s-2", Zone: "a", Private: true}, {ID: "s-3", Zone: "b", Private: true},
		{ID: "s-4", Zone: "c", Private: true}, {ID: "s-5", Zone: "d", Private: true}}
	if got := strings.Join(candidates(all), ","); got != "s-1,s-3,s-4" {
		t.Errorf("got %s", got)
	}
	if got := candidates(all[:1]); len(got) != 1 || !strings.Contains(got[0], "no private subnet") {
		t.Errorf("without a private subnet: %q", got)
	}
}
