// Package onboarding lets IAM identities into a real cluster through aws-iam-authenticator's own server, and out again.
package onboarding

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/test/sts"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster = "prod.example.com"
	region  = "us-east-1"
	account = "111122223333"

	handlerName = "kops-spot" // who the function's role is in the cluster
)

// Who STS knows. The function's role and the user are to be mapped; alice is, by her cluster's people, before anybody comes.
var (
	function = sts.RoleSession(account, "CastLambdaRoleForSpot", "cast-kops-prod")
	user     = sts.User(account, "cast-kops-prod.example.com")
	alice    = sts.User(account, "people/alice")
)

var (
	roleIdentity = onboard.Identity{Kind: onboard.RoleIdentity, ARN: "arn:aws:iam::" + account + ":role/cast-kops/CastLambdaRoleForSpot",
		Username: handlerName, Groups: []string{onboard.HandlerGroup}}
	userIdentity = onboard.Identity{Kind: onboard.UserIdentity, ARN: user.ARN, Username: "cast-kops", Groups: []string{"cast:console"}}
	mapping      = onboard.Mapping{Cluster: cluster, Identities: []onboard.Identity{roleIdentity, userIdentity}}
)

// shared is the cluster of all tests, which come one after another: each has its authenticator run in its own way.
var shared struct {
	cp    *testenv.ControlPlane
	auth  *testenv.Authenticator
	admin dynamic.Interface
	pods  *pods
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "onboarding:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	shared.cp, shared.auth, err = testenv.StartWithAuthenticator(ctx, testenv.Options{Log: os.Stderr},
		testenv.AuthenticatorOptions{ClusterID: cluster, Identities: []sts.Identity{function, user, alice}})
	if err != nil {
		cancel()
		return 1, err
	}
	shared.pods = startPods(ctx)
	defer func() {
		cancel()
		if stopErr := errors.Join(shared.pods.wait(), shared.cp.Stop(), shared.auth.Stop()); stopErr != nil {
			code, err = 1, errors.Join(err, stopErr)
		}
	}()
	if shared.admin, err = onboard.NewClient(shared.cp.AdminConfig()); err != nil {
		return 1, err
	}
	master := testenv.Node{InstanceID: "i-0123456789abcdef0", Labels: map[string]string{"node-role.kubernetes.io/control-plane": ""}}
	if err := shared.cp.CreateNodes(ctx, master); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
