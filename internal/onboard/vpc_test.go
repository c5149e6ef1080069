package onboard

import (
	"context"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

type network struct{ asked int }

func (n *network) Subnets(_ context.Context, vpc string) ([]awsadmin.Subnet, error) {
	n.asked++
	return []awsadmin.Subnet{{ID: "subnet-1"}, {ID: "subnet-2"}}, nil
}

func (n *network) SecurityGroups(context.Context, string) ([]string, error) {
	return []string{"sg-1"}, nil
}

func TestInTheVPC(t *testing.T) {
	g := Environment{Values: iam.Values{VPC: "vpc-1"}}
	n := &network{}
	if err := CheckVPC(t.Context(), n, g, nil, nil); err != nil || n.asked > 0 {
		t.Errorf("a function outside of the VPC: %v, asked %d times", err, n.asked)
	}
	if err := CheckVPC(t.Context(), n, g, []string{"subnet-2"}, []string{"sg-1"}); err != nil {
		t.Error(err)
	}
	err := CheckVPC(t.Context(), n, g, []string{"subnet-2", "subnet-3"}, []string{"sg-2"})
	if err == nil || !strings.Contains(err.Error(), "there is no subnet subnet-3 in the cluster's VPC vpc-1: it has subnet-1 and subnet-2") ||
		!strings.Contains(err.Error(), "there is no security group sg-2 in the cluster's VPC vpc-1") {
		t.Error(err)
	}
}
