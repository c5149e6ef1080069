package awsadmin

import (
	"context"
	"encoding/json"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// NewKey is an access key at the only time when its secret can be had.
type NewKey struct {
	ID     string `json:"accessKeyId"`
	Secret string `json:"secretAccessKey"`
}

// String is the key as logs may have it.
func (k NewKey) String() string { return k.ID }

// GoString is the key as logs may have it.
func (k NewKey) GoString() string { return k.ID }

// JSON is the form in which the key is stored, secret and all.
func (k NewKey) JSON() []byte {
	b, _ := json.Marshal(k) // two strings always can be
	return b
}

// CreateKey makes an access key for a user.
func (a *Account) CreateKey(ctx context.Context, user string) (NewKey, error) {
	// Tried again without an answer, it could make a second key that nobody knows of.
	once := func(o *iam.Options) { o.Retryer = aws.NopRetryer{} }
	out, err := a.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &user}, once)
	if err != nil {
		return NewKey{}, translate("making an access key for user "+user, "user "+user, err)
	}
	return NewKey{aws.ToString(out.AccessKey.AccessKeyId), aws.ToString(out.AccessKey.SecretAccessKey)}, nil
}
