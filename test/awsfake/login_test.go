package awsfake_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/castai/kops-spot/internal/awscloud"
	"github.com/castai/kops-spot/internal/spot"
)

// TestLoginCallsOnMoto holds the calls that a log-in needs to AWS's documentation, on moto, which deviates in none of
// them. (The STS that checks signatures and clocks is the test environment's own.)
func TestLoginCallsOnMoto(t *testing.T) {
	cfg := config(startMoto(t), "AKIDFAKE")
	cloud, ctx := awscloud.New(cfg), t.Context()
	secrets, parameters := secretsmanager.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	for name, value := range map[string]string{"text": "a-token", "object": `{"token":"a-token","ca":"a-ca"}`, "broken": `{"token"`} {
		if _, err := secrets.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String(value)}); err != nil {
			t.Fatal(err)
		}
		_, err := parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/" + name), Value: aws.String(value), Type: ssmtypes.ParameterTypeSecureString})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := secrets.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String("binary"), SecretBinary: []byte("a-token")}); err != nil {
		t.Fatal(err)
	}
	secret := func(name, key string) (string, error) { return cloud.Secret(ctx, name, key) }
	parameter := func(name, key string) (string, error) { return cloud.Parameter(ctx, "/"+name, key) }
	for _, c := range []struct {
		from      func(name, key string) (string, error)
		name, key string
		want      string // empty for an error that another try cannot mend
	}{
		{secret, "text", "token", "a-token"},
		{secret, "object", "token", "a-token"},
		{secret, "object", "ca", "a-ca"},
		{secret, "object", "other", ""},
		{secret, "broken", "token", ""},
		{secret, "binary", "token", ""},
		{secret, "nowhere", "token", ""},
		{parameter, "text", "token", "a-token"},
		{parameter, "object", "ca", "a-ca"},
		{parameter, "broken", "token", ""},
		{parameter, "nowhere", "token", ""},
	} {
		got, err := c.from(c.name, c.key)
		if got != c.want || errors.Is(err, spot.ErrFinal) != (c.want == "") || errors.Is(err, spot.ErrNotFound) {
			t.Errorf("%s, %s: got %q, %v", c.name, c.key, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "a-token") || !strings.Contains(err.Error(), c.name)) {
			t.Errorf("%s: the error holds the secret, or does not name it: %v", c.name, err)
		}
	}
	if arn, err := cloud.CallerARN(ctx); err != nil || !strings.HasPrefix(arn, "arn:aws:sts::") {
		t.Errorf("got %q, %v", arn, err)
	}
}
