package onboard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/castai/kops-spot/internal/awsadmin"
)

// Networks is what of AWS tells which subnets and security groups there are.
type Networks interface {
	Subnets(ctx context.Context, vpc string) ([]awsadmin.Subnet, error)
	SecurityGroups(ctx context.Context, vpc string) ([]string, error)
}

// CheckVPC refuses subnets and security groups that are not in the cluster's VPC: a function with them could not reach it, and
// Lambda says so only when it is made.
func CheckVPC(ctx context.Context, aws Networks, g Environment, subnets, groups []string) error {
	if len(subnets) == 0 && len(groups) == 0 {
		return nil
	}
	all, err := aws.Subnets(ctx, g.VPC)
	if err != nil {
		return err
	}
	has, err := aws.SecurityGroups(ctx, g.VPC)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range subnets {
		if !slices.ContainsFunc(all, func(s awsadmin.Subnet) bool { return s.ID == id }) {
			errs = append(errs, fmt.Errorf("there is no subnet %s in the cluster's VPC %s: it has %s", id, g.VPC, joinAnd(subnetIDs(all))))
		}
	}
	for _, id := range groups {
		if !slices.Contains(has, id) {
			errs = append(errs, fmt.Errorf("there is no security group %s in the cluster's VPC %s", id, g.VPC))
		}
	}
	return errors.Join(errs...)
}

func subnetIDs(all []awsadmin.Subnet) (ids []string) {
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	return ids
}
