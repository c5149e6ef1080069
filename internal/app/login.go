package app

import (
	"context"
	"fmt"
	"os"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
)

// logIn returns the client configuration for the API server. It makes no requests: tokens and certificates are read
// when they are first used.
func (c Config) logIn(cfg awssdk.Config, cloud *aws.Cloud, userAgent string) (*rest.Config, error) {
	if c.login.in == byKubeconfig {
		login, _, err := kube.Kubeconfig{File: c.login.name}.LogIn(userAgent)
		return login, err
	}
	e := kube.Endpoint{Server: c.Server}
	if c.ca != (location{}) {
		e.CA, e.InternalName = source(cloud, c.ca, caKey), internalPrefix+c.Cluster
	}
	if c.login.in == byIAM {
		return kube.WithIAM(e, kube.IAM{ClusterID: c.login.name, Region: cfg.Region, Credentials: cfg.Credentials, WhoAmI: cloud.CallerARN}, userAgent), nil
	}
	return kube.WithToken(e, source(cloud, c.login, tokenKey), userAgent), nil
}

// source returns a function that reads the location. key selects a value of a JSON object.
func source(cloud *aws.Cloud, p location, key string) kube.Source {
	switch p.in {
	case inSecret:
		return func(ctx context.Context) (string, error) { return cloud.Secret(ctx, p.name, key) }
	case inParameter:
		return func(ctx context.Context) (string, error) { return cloud.Parameter(ctx, p.name, key) }
	case inFile:
		return func(context.Context) (string, error) {
			text, err := os.ReadFile(p.name)
			if err != nil {
				return "", spot.Permanent(fmt.Errorf("reading the %s: %w", key, err))
			}
			return string(text), nil
		}
	}
	return func(context.Context) (string, error) { return p.name, nil }
}
