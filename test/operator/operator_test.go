// Package operator runs the command line as an operator does: with a real API server, aws-iam-authenticator's own
// server, moto for AWS with a proxy that transforms SAM templates, and fakes for EventBridge and Lambda.
package operator

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/identitymap"

	"k8s.io/client-go/dynamic"

	names "github.com/castai/kops-spot/iam"
	fakeevents "github.com/castai/kops-spot/test/fakes/events"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
	"github.com/castai/kops-spot/test/samproxy"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster      = "prod.example.com"
	otherCluster = "staging.example.com"
	region       = "eu-west-1"
	account      = "123456789012" // moto's own account, in which the function is installed
	kubeSystem   = "kube-system"
)

func TestMain(m *testing.M) { testenv.Main(m, leaked) }

// TestInTheCluster runs the tests that share the cluster, one after another, in parallel with the tests that need only
// an account. They mostly wait, so `make test` runs each half in a process of its own, with its own cluster and AWS.
func TestInTheCluster(t *testing.T) {
	t.Parallel()
	type test struct {
		name string
		run  func(*testing.T)
	}
	for _, half := range []struct {
		name  string
		tests []test
	}{
		{"first half", []test{
			{"discovery", discovery},
			{"scripts", scripts},
			{"install and uninstall", installAndUninstall},
			{"install interrupted", installInterrupted},
			{"install with onboarding", installWithOnboarding},
			{"recorded answers of AWS", recordedAnswers},
			{"state store", stateStore},
			{"components", componentsFound},
		}},
		{"second half", []test{
			{"node termination handler", migrations},
			{"shipped program", shippedProgram},
			{"upgrade", upgrade},
			{"with SAM", withSAM},
			{"guide", guide},
			{"onboard", onboardAndOffboard},
			{"onboard by hand", onboardByHand},
			{"onboard with another cluster's credentials", otherClusterRefused},
			{"mapping backends", backends},
			{"mapping without an authenticator", noAuthenticator},
			{"mapping interrupted", mappingInterrupted},
			{"mapping conflict", conflict},
			{"mapping keeps extra groups", extraGroups},
			{"binding to another role", otherRoleBinding},
			{"connecting", connecting},
			{"kube-router", routerFixed},
			{"savings", estimates},
		}},
	} {
		t.Run(half.name, func(t *testing.T) {
			for _, c := range half.tests {
				t.Run(c.name, c.run)
			}
		})
	}
}

// programs is the directory of the programs bootstrap and kops-spot.
var programs = testenv.Once(testenv.BuildPrograms, nil)

// code is a zip with the function's code, as built by make dist.
var code = testenv.Once(func(context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "operator-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "kops-spot.zip")
	return file, zipped(filepath.Join(programs(), "bootstrap"), file)
}, func(file string) error { return os.RemoveAll(filepath.Dir(file)) })

// zipped writes a zip with the function's program.
func zipped(bootstrap, file string) error {
	program, err := os.ReadFile(bootstrap)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create("bootstrap")
	if err == nil {
		_, err = f.Write(program)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

type controlPlane struct {
	*testenv.ControlPlane
	auth  *testenv.Authenticator
	admin dynamic.Interface
}

// cp is the cluster, with an authenticator for IAM. Each test restores it.
var cp = testenv.Once(func(ctx context.Context) (c controlPlane, err error) {
	c.ControlPlane, c.auth, err = testenv.StartWithAuthenticator(ctx, testenv.Options{Log: os.Stderr},
		testenv.AuthenticatorOptions{ClusterID: cluster, Identities: []fakests.Identity{function, user, alice}})
	if err == nil {
		c.admin, err = identitymap.NewClient(c.AdminConfig())
	}
	return c, err
}, func(c controlPlane) error { return errors.Join(c.Stop(), c.auth.Stop()) })

// moto has the AWS managed policies that onboarding attaches, and one that it does not use.
var moto = testenv.Once(func(ctx context.Context) (*testenv.Moto, error) {
	return testenv.StartMoto(ctx, "", slices.Concat(names.UserManaged, names.GuideRoleManaged, []string{"AmazonS3ReadOnlyAccess"})...)
}, (*testenv.Moto).Stop)

// sam is moto with the transformation of SAM templates. events delivers its events.
var (
	sam    = testenv.Once(func(context.Context) (*samproxy.Proxy, error) { return samproxy.Start(moto().URL) }, nil)
	events = testenv.Once(func(ctx context.Context) (*fakeevents.Bridge, error) {
		var functions []fakelambda.Function
		for _, cluster := range []string{cluster, otherCluster} {
			functions = append(functions, fakelambda.Function{Name: names.FunctionName(cluster), Bootstrap: filepath.Join(programs(), "bootstrap"),
				Environment: map[string]string{"AWS_ENDPOINT_URL": moto().URL, "AWS_ACCESS_KEY_ID": function.AccessKeyID,
					"AWS_SECRET_ACCESS_KEY": function.SecretAccessKey, "AWS_SESSION_TOKEN": function.SessionToken}})
		}
		return fakeevents.Start(ctx, fakeevents.Options{Moto: sam().URL, Region: region, Functions: functions,
			Internet: internet().Client, RetryLimit: time.Second})
	}, (*fakeevents.Bridge).Close)
)
