package awsadmin

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// currentStage is the staging label of a secret's current version.
const currentStage = "AWSCURRENT"

// Secret describes a secret without its value.
type Secret struct {
	Name, ARN string
	Tags      map[string]string
	Label     string // of the current version, as passed to Store
	Deleted   bool   // it is scheduled for deletion, and its name is taken until then
}

// deletionLimit is how long Secrets Manager may take to delete a secret without recovery.
const deletionLimit = time.Minute

// Secret describes a secret; nil if there is none, or if its deletion began a moment ago: creating it is retried.
func (a *Account) Secret(ctx context.Context, name string) (*Secret, error) {
	out, err := a.secrets.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &name})
	if err != nil {
		return nil, unlessNone(translate("secret "+name, err))
	}
	if out.DeletedDate != nil && time.Since(*out.DeletedDate).Abs() < deletionLimit {
		return nil, nil
	}
	s := &Secret{Name: name, ARN: aws.ToString(out.ARN), Deleted: out.DeletedDate != nil,
		Tags: mapOf(out.Tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value })}
	for _, labels := range out.VersionIdsToStages {
		for _, label := range labels {
			if label != currentStage && slices.Contains(labels, currentStage) {
				s.Label = label
			}
		}
	}
	return s, nil
}

// Store puts a value into a secret. The label of its version tells later what the secret contains, without reading it.
func (a *Account) Store(ctx context.Context, secret, text, label string) error {
	return a.Do(ctx, call("secret "+secret, (*secretsmanager.Client).PutSecretValue, &secretsmanager.PutSecretValueInput{
		SecretId: &secret, SecretString: &text, VersionStages: []string{currentStage, label}}))
}
