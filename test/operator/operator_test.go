// Package operator runs the command line as an operator does: on a real API server, which knows IAM by
// aws-iam-authenticator's own server, and on AWS as moto plays it, with a SAM template transformed as CloudFormation
// does, and with EventBridge and Lambda as far as the bridge plays them.
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
	account      = "123456789012" // moto's own: in it the function is installed
	kubeSystem   = "kube-system"
)

func TestMain(m *testing.M) { testenv.Main(m, leaked) }

// TestInTheCluster has what needs the cluster: one after another, beside those that need an account alone.
func TestInTheCluster(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"discovery", discovery},
		{"scripts", scripts},
		{"install from nothing to nothing", fromNothingToNothing},
		{"install broken off anywhere", installBrokenOffAnywhere},
		{"install reads the state store", theStateStoreIsRead},
		{"install finds others", othersAreFound},
		{"the shipped program carries the function", theShippedProgramCarriesTheFunction},
		{"onboard", theBinary},
		{"onboard by hand", commandsByHand},
		{"onboard refuses two clusters' log-ins", kubeconfigAndCredentialsOfTwoClustersAreRefused},
		{"mapping backends", backends},
		{"mapping without an authenticator", noAuthenticator},
		{"mapping broken off anywhere", mappingBrokenOffAnywhere},
		{"mapping conflict", conflict},
		{"mapping leaves too much", tooMuch},
		{"a binding to another role", aBindingToAnotherRole},
	} {
		t.Run(c.name, c.run)
	}
}

// programs is the directory of the function's bootstrap and of the command line.
var programs = testenv.Once(testenv.BuildPrograms, nil)

// code is a file with the function's code, as make dist makes it.
var code = testenv.Once(func(context.Context) (string, error) {
	bootstrap, err := os.ReadFile(filepath.Join(programs(), "bootstrap"))
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create("bootstrap")
	if err == nil {
		_, err = f.Write(bootstrap)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "operator-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "kops-spot.zip")
	return file, os.WriteFile(file, b.Bytes(), 0o600)
}, func(file string) error { return os.RemoveAll(filepath.Dir(file)) })

type controlPlane struct {
	*testenv.ControlPlane
	auth  *testenv.Authenticator
	admin dynamic.Interface
}

// cp is the cluster, which knows IAM. Each test leaves it as it was.
var cp = testenv.Once(func(ctx context.Context) (c controlPlane, err error) {
	c.ControlPlane, c.auth, err = testenv.StartWithAuthenticator(ctx, testenv.Options{Log: os.Stderr},
		testenv.AuthenticatorOptions{ClusterID: cluster, Identities: []fakests.Identity{function, user, alice}})
	if err == nil {
		c.admin, err = identitymap.NewClient(c.AdminConfig())
	}
	return c, err
}, func(c controlPlane) error { return errors.Join(c.Stop(), c.auth.Stop()) })

// moto plays AWS, which has the policies of its own that onboarding attaches, and one of which it takes no notice.
var moto = testenv.Once(func(ctx context.Context) (*testenv.Moto, error) {
	return testenv.StartMoto(ctx, "", slices.Concat(names.UserManaged, names.GuideRoleManaged, []string{"AmazonS3ReadOnlyAccess"})...)
}, (*testenv.Moto).Stop)

// sam is moto with the transformation of SAM templates, and events has its events delivered.
var (
	sam    = testenv.Once(func(context.Context) (*samproxy.Proxy, error) { return samproxy.Start(moto().URL) }, nil)
	events = testenv.Once(func(ctx context.Context) (*fakeevents.Bridge, error) {
		return fakeevents.Start(ctx, fakeevents.Options{Moto: sam().URL, Region: region, Functions: []fakelambda.Function{
			{Name: names.FunctionName(cluster), Bootstrap: filepath.Join(programs(), "bootstrap"), Environment: map[string]string{
				"AWS_ENDPOINT_URL": moto().URL, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}}}})
	}, (*fakeevents.Bridge).Close)
)
