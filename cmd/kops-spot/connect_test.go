package main

import (
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/kube"
)

func TestRightCluster(t *testing.T) {
	const prod, dev = "prod.example.com", "dev.example.com"
	for name, c := range map[string]struct {
		said, own, context string
		want, err          string
	}{
		"it is said":                            {said: prod, want: prod},
		"it is said, and the cluster agrees":    {said: prod, own: prod, context: "test", want: prod},
		"it is said, and the cluster disagrees": {said: prod, own: dev, err: "wrong cluster: expected prod.example.com, but the kubeconfig context c connects to dev.example.com"},
		"what a kubeconfig calls it is a name":  {said: prod, context: dev, want: prod},
		"the cluster says":                      {own: prod, context: dev, want: prod},
		"the kubeconfig says":                   {context: prod, want: prod},
		"the kubeconfig is EKS'":                {context: "arn:aws:eks:us-east-1:123456789012:cluster/prod.x", err: "set it with --cluster"},
		"the kubeconfig says something else":    {context: "kubernetes", err: "set it with --cluster"},
		"nobody says":                           {err: "set it with --cluster"},
		"what is said is no name":               {said: "prod", own: prod, err: `"prod" is not the name of a kOps cluster`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clusterName(c.said, c.own, kube.Context{Name: "c", Cluster: c.context})
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}
