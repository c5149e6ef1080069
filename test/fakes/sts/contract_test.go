package sts_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"

	fakests "github.com/castai/kops-spot/test/fakes/sts"
)

const account, region = "111122223333", "eu-central-1"

// TestContract uses the SDK. The test environment's contract uses aws-iam-authenticator.
func TestContract(t *testing.T) {
	user, role := fakests.User(account, "alice"), fakests.RoleSession(account, "CastLambdaRoleForSpot", "kops-spot")
	wrong, stolen := role, role
	wrong.SecretAccessKey += "x"
	stolen.SessionToken = ""
	s := fakests.New(user, role)
	e, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	sdk := func(i fakests.Identity, try aws.Retryer, want string) {
		t.Helper()
		client := awssts.New(awssts.Options{BaseEndpoint: &e.URL, Region: region, Retryer: try,
			Credentials: credentials.NewStaticCredentialsProvider(i.AccessKeyID, i.SecretAccessKey, i.SessionToken)})
		out, err := client.GetCallerIdentity(t.Context(), nil)
		switch {
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %s", i.ARN, err, want)
		case err == nil && (*out.Arn != want || *out.UserId != i.UserID || *out.Account != account):
			t.Errorf("%s: %+v, want %s", i.ARN, out, want)
		}
	}
	sdk(user, nil, user.ARN)
	sdk(role, nil, role.ARN)
	sdk(fakests.User(account, "mallory"), nil, "InvalidClientTokenId")
	sdk(stolen, nil, "InvalidClientTokenId")
	sdk(wrong, nil, "SignatureDoesNotMatch")
	// The SDK reads the server's time from a refusal and retries, which hides a wrong clock unless it is switched off.
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		s.SetClock(ahead)
		sdk(role, aws.NopRetryer{}, "SignatureDoesNotMatch")
		sdk(role, nil, role.ARN)
	}
	s.SetClock(0)
	last := fakests.Request{Host: strings.TrimPrefix(e.URL, "http://"), AccessKeyID: role.AccessKeyID}
	if all := s.Requests(); len(all) != 5+2*3 || all[len(all)-1] != last {
		t.Errorf("recorded %+v, the last of 11 should be %+v", all, last)
	}
}
