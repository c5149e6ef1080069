package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/castai/kops-spot/internal/spot"
)

// Secret reads a secret of Secrets Manager by name or ARN. If it is a JSON object, as the console creates them, Secret
// returns the text under key.
func (c *Cloud) Secret(ctx context.Context, id, key string) (string, error) {
	doing := "reading secret " + id + " of Secrets Manager"
	out, err := attempt(ctx, c, "secretsmanager:GetSecretValue", doing, "secret "+id, c.secrets.GetSecretValue,
		&secretsmanager.GetSecretValueInput{SecretId: aws.String(id)})
	if err != nil {
		return "", err
	}
	if out.SecretString == nil {
		return "", fmt.Errorf("%s: %w: it is binary: store it as text", doing, spot.ErrPermanent)
	}
	return textIn(*out.SecretString, doing, key)
}

// Parameter reads a parameter of Systems Manager by name or ARN, otherwise as Secret.
func (c *Cloud) Parameter(ctx context.Context, name, key string) (string, error) {
	doing := "reading parameter " + name + " of Systems Manager"
	out, err := attempt(ctx, c, "ssm:GetParameter", doing, "parameter "+name, c.parameters.GetParameter,
		&ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(true)})
	if err != nil {
		return "", err
	}
	return textIn(aws.ToString(out.Parameter.Value), doing, key)
}

// textIn returns the value, or the text under key if it is a JSON object. Its errors never contain the value.
func textIn(value, doing, key string) (string, error) {
	if !strings.HasPrefix(strings.TrimSpace(value), "{") {
		return value, nil
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(value), &object); err != nil {
		return "", fmt.Errorf("%s: %w: it begins with { but is not a JSON object", doing, spot.ErrPermanent)
	}
	text, ok := object[key].(string)
	if !ok {
		return "", fmt.Errorf("%s: %w: the JSON object has no string under %q", doing, spot.ErrPermanent, key)
	}
	return text, nil
}

// CallerARN returns the ARN of the credentials. It needs no permission.
func (c *Cloud) CallerARN(ctx context.Context) (string, error) {
	out, err := attempt(ctx, c, "sts:GetCallerIdentity", "getting the caller identity", "",
		c.sts.GetCallerIdentity, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Arn), nil
}
