package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// spec is what the function has to know of a cluster's specification in kOps' state store
// (https://kops.sigs.k8s.io/cluster_spec/).
type spec struct {
	Metadata struct{ Name string }
	Spec     struct {
		KubernetesAPIAccess []string `yaml:"kubernetesApiAccess"` // who may reach the API
		API                 struct {
			Access       []string
			LoadBalancer *struct{ Type string } `yaml:"loadBalancer"`
		}
	}
}

// why a function outside of the VPC cannot reach the API server by the specification; empty if it can.
func (s spec) privateReason() string {
	access := slices.Concat(s.Spec.KubernetesAPIAccess, s.Spec.API.Access)
	switch lb := s.Spec.API.LoadBalancer; {
	case lb != nil && lb.Type == "Internal":
		return "the API's load balancer is internal, as the state store says"
	case len(access) > 0 && !slices.Contains(access, "0.0.0.0/0"):
		return "the API lets in " + strings.Join(access, ", ") + " alone, as the state store says, and a function outside of the VPC has no fixed address"
	}
	return ""
}

// Store is kOps' state store, as bucket or bucket/prefix.
type Store string

// read reads a cluster's specification; nil if there is no store that is known, or it may not be read, which is told.
func (s Store) read(ctx context.Context, aws *awsadmin.Account, cluster string, d *Discovery) (*spec, error) {
	if s == "" {
		return nil, nil
	}
	bucket, prefix, _ := strings.Cut(string(s), "/")
	key := strings.TrimPrefix(prefix+"/"+cluster+"/config", "/")
	text, err := aws.Object(ctx, bucket, key)
	const unread = "whether the API server is reachable from outside of the VPC is guessed by its address"
	advice := unread
	var read spec
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err
	case errors.Is(err, awsadmin.ErrDenied):
		advice = "allow it, or know that " + unread
	case err == nil && text == nil:
		err = fmt.Errorf("there is no s3://%s/%s any more", bucket, key)
	case err == nil:
		if err = yaml.Unmarshal(text, &read); err != nil {
			err = fmt.Errorf("s3://%s/%s: %w", bucket, key, err)
		}
	}
	if err != nil {
		d.find(change.Warn, "state store", err.Error(), advice)
		return nil, nil
	}
	if read.Metadata.Name != cluster {
		return nil, fmt.Errorf("s3://%s/%s, from which the cluster says that it was made, is of the cluster %q and not of %s", bucket, key, read.Metadata.Name, cluster)
	}
	return &read, nil
}
