package main

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

func TestMachineOf(t *testing.T) {
	for id, c := range map[string]struct {
		label string
		want  machine
		err   string
	}{
		"aws:///us-east-1a/i-0a1b2c3d4e5f60718":       {want: machine{"i-0a1b2c3d4e5f60718", "us-east-1"}},
		"aws:///us-west-2-lax-1a/i-0a1b2c3d":          {want: machine{"i-0a1b2c3d", "us-west-2"}},
		"aws:///us-gov-west-1b/i-0a1b2c3d":            {want: machine{"i-0a1b2c3d", "us-gov-west-1"}},
		"aws:///eu-west-1a/i-0a1b2c3d":                {label: "eu-central-1", want: machine{"i-0a1b2c3d", "eu-central-1"}},
		"aws:///somewhere/i-0a1b2c3d":                 {want: machine{"i-0a1b2c3d", ""}},
		"":                                            {err: "has an empty spec.providerID: if it has just registered, try again in a minute"},
		"gce://project/us-central1-a/i-0a1b2c3d":      {err: "is not an EC2 instance"},
		"aws:///us-east-1a/fargate-ip-10-0-0-1":       {err: "is not an EC2 instance"},
		"aws:///us-east-1a/i-0a1b2c3d; rm -rf /tmp/x": {err: "is not an EC2 instance"},
	} {
		n := spot.Node{Name: "n", ProviderID: id, Labels: map[string]string{"topology.kubernetes.io/region": c.label}}
		got, err := machineOf(n)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %+v, %v; want %+v, %q", id, got, err, c.want, c.err)
		}
	}
}
