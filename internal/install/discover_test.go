package install

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/awsadmin"
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
