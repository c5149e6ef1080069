package awsadmin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// Bucket is an S3 bucket of the account.
type Bucket struct {
	Name     string
	Exists   bool
	Private  bool // public access is blocked
	TLSOnly  bool // it has a policy
	Ours     bool // it has our tag
	Untagged bool // created by an interrupted run, or by somebody else
}

// noSuch are S3's error codes for something that does not exist.
var noSuch = []string{"NotFound", "NoSuchBucket", "NoSuchKey", "NoSuchPublicAccessBlockConfiguration",
	"NoSuchBucketPolicy", "NoSuchTagSet"}

// exists tells a response that something does not exist from an error.
func exists(on string, err error) (bool, error) {
	if err == nil {
		return true, nil
	}
	code, _ := apiError(err)
	var of *smithy.OperationError
	switch {
	case slices.Contains(noSuch, code):
		return false, nil
	case status(err) == http.StatusForbidden && !slices.Contains(errorCodes[ErrDenied], code) && errors.As(err, &of):
		// A response to HEAD has no code and no message.
		of.Err = &smithy.GenericAPIError{Code: "AccessDenied", Message: "the bucket may belong to another account"}
	}
	return false, translate(on, err)
}

func status(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// Bucket describes a bucket. It is an error if another account owns it.
func (a *Account) Bucket(ctx context.Context, name, owner, tag, value string) (b Bucket, err error) {
	b.Name = name
	on := "bucket " + name
	_, err = a.buckets.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.Exists, err = exists(on, err); err != nil || !b.Exists {
		return b, err
	}
	block, err := a.buckets.GetPublicAccessBlock(ctx,
		&s3.GetPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.Private, err = exists(on, err); err != nil {
		return b, err
	}
	if b.Private {
		c := block.PublicAccessBlockConfiguration
		b.Private = c != nil && aws.ToBool(c.BlockPublicAcls) && aws.ToBool(c.BlockPublicPolicy) &&
			aws.ToBool(c.IgnorePublicAcls) && aws.ToBool(c.RestrictPublicBuckets)
	}
	_, err = a.buckets.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.TLSOnly, err = exists(on, err); err != nil {
		return b, err
	}
	tags, err := a.buckets.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &name, ExpectedBucketOwner: &owner})
	tagged, err := exists(on, err)
	if b.Untagged = !tagged || len(tags.TagSet) == 0; !b.Untagged {
		has := mapOf(tags.TagSet, func(t types.Tag) (key, value *string) { return t.Key, t.Value })
		b.Ours = has[tag] == value
	}
	return b, err
}

// Foreign reports whether somebody else has created the bucket: it has other tags.
func (b Bucket) Foreign() bool { return b.Exists && !b.Ours && !b.Untagged }

func CreateBucket(name, region string) Call {
	in := &s3.CreateBucketInput{Bucket: &name}
	if region != "us-east-1" { // S3 refuses it as a constraint
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(region)}
	}
	return call("bucket "+name, (*s3.Client).CreateBucket, in)
}

func BlockPublicAccess(name, owner string) Call {
	all := &types.PublicAccessBlockConfiguration{BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true),
		IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true)}
	return call("bucket "+name, (*s3.Client).PutPublicAccessBlock,
		&s3.PutPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &owner, PublicAccessBlockConfiguration: all})
}

func PutBucketPolicy(name, owner, policy string) Call {
	return call("bucket "+name, (*s3.Client).PutBucketPolicy,
		&s3.PutBucketPolicyInput{Bucket: &name, ExpectedBucketOwner: &owner, Policy: &policy})
}

func TagBucket(name, owner string, tags map[string]string) Call {
	all := &types.Tagging{}
	for _, t := range tagList(tags) {
		all.TagSet = append(all.TagSet, types.Tag{Key: t.Key, Value: t.Value})
	}
	return call("bucket "+name, (*s3.Client).PutBucketTagging,
		&s3.PutBucketTaggingInput{Bucket: &name, ExpectedBucketOwner: &owner, Tagging: all})
}

func DeleteBucket(name, owner string) Call {
	return call("bucket "+name, (*s3.Client).DeleteBucket,
		&s3.DeleteBucketInput{Bucket: &name, ExpectedBucketOwner: &owner})
}

// Objects lists the keys with a prefix.
func (a *Account) Objects(ctx context.Context, bucket, owner, prefix string) ([]string, error) {
	return every(ctx, "bucket "+bucket, s3.NewListObjectsV2Paginator(a.buckets,
		&s3.ListObjectsV2Input{Bucket: &bucket, ExpectedBucketOwner: &owner, Prefix: &prefix}),
		func(p *s3.ListObjectsV2Output) []types.Object { return p.Contents },
		func(o types.Object) string { return aws.ToString(o.Key) })
}

// Object reads an object of a bucket in any region; nil if there is none.
func (a *Account) Object(ctx context.Context, bucket, owner, key string) ([]byte, error) {
	get := func(options ...func(*s3.Options)) ([]byte, error) {
		out, err := a.buckets.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, ExpectedBucketOwner: &owner, Key: &key},
			options...)
		if err != nil {
			return nil, err
		}
		defer out.Body.Close()
		return io.ReadAll(out.Body)
	}
	content, err := get()
	var moved *awshttp.ResponseError
	if status(err) == http.StatusMovedPermanently && errors.As(err, &moved) {
		if region := moved.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			content, err = get(func(o *s3.Options) { o.Region = region })
		}
	}
	if is, err := exists("object "+bucket+"/"+key, err); err != nil || !is {
		return nil, err
	}
	return content, nil
}

func PutObject(bucket, owner, key string, content []byte) Call {
	return Call{"object " + bucket + "/" + key, func(ctx context.Context, a *Account) error {
		_, err := a.buckets.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, ExpectedBucketOwner: &owner, Key: &key,
			Body: bytes.NewReader(content)}) // a new reader for each try
		return err
	}}
}

func DeleteObject(bucket, owner, key string) Call {
	return call("object "+bucket+"/"+key, (*s3.Client).DeleteObject,
		&s3.DeleteObjectInput{Bucket: &bucket, ExpectedBucketOwner: &owner, Key: &key})
}
