package awsadmin

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// currentStage is the label that Secrets Manager gives the version that counts.
const currentStage = "AWSCURRENT"

// Secret is what may be known of a secret without reading it.
type Secret struct {
	Name, ARN string
	Tags      map[string]string
	Label     string // of what it holds, if Store has put it there
	Deleted   bool   // it is scheduled to be deleted: until then nobody can make one of its name
}

// Secret describes a secret; nil if there is none.
func (a *Account) Secret(ctx context.Context, name string) (*Secret, error) {
	out, err := a.secrets.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &name})
	if err != nil {
		return nil, unlessNone(translate("looking for secret "+name, "secret "+name, err))
	}
	s := &Secret{Name: name, ARN: aws.ToString(out.ARN), Deleted: out.DeletedDate != nil,
		Tags: mapOf(out.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value })}
	for _, labels := range out.VersionIdsToStages {
		if !slices.Contains(labels, currentStage) {
			continue
		}
		for _, label := range labels {
			if label != currentStage {
				s.Label = label
			}
		}
	}
	return s, nil
}

// Store puts a text into a secret. The label is of the version that holds it: so what the secret holds can be known
// without reading it.
func (a *Account) Store(ctx context.Context, secret, text, label string) error {
	_, err := a.secrets.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &secret, SecretString: &text, VersionStages: []string{currentStage, label}})
	return translate("storing "+label+" in secret "+secret, "secret "+secret, err)
}
