package awsadmin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// Bucket is an S3 bucket of the account's own.
type Bucket struct {
	Name    string
	There   bool
	Private bool // nobody can make anything in it public
	TLSOnly bool // it has a policy
	Ours    bool // it has the tag
	Bare    bool // it has no tags at all: a run that makes it was broken off, or somebody else's has none
}

// noSuch are the codes with which S3 says that there is none.
var noSuch = map[string]bool{"NotFound": true, "NoSuchBucket": true, "NoSuchKey": true, "NoSuchPublicAccessBlockConfiguration": true,
	"NoSuchBucketPolicy": true, "NoSuchTagSet": true}

// there tells an answer that something is not there from an error.
func there(doing, on string, err error) (bool, error) {
	var api smithy.APIError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &api) && noSuch[api.ErrorCode()]:
		return false, nil
	}
	var response *awshttp.ResponseError // to HEAD S3 says no more than a status
	if errors.As(err, &response) && response.HTTPStatusCode() == http.StatusForbidden {
		err = &smithy.GenericAPIError{Code: "AccessDenied", Message: "S3 says no more; another account may have the bucket"}
	}
	return false, translate(doing, on, err)
}

// Bucket looks at a bucket that is to be the account's. One of its name that another account has is an error.
func (a *Account) Bucket(ctx context.Context, name, owner, tag, value string) (b Bucket, err error) {
	b.Name = name
	on, doing := "bucket "+name, "looking for bucket "+name
	_, err = a.buckets.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.There, err = there(doing, on, err); err != nil || !b.There {
		return b, err
	}
	block, err := a.buckets.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.Private, err = there(doing, on, err); err != nil {
		return b, err
	}
	if b.Private {
		c := block.PublicAccessBlockConfiguration
		b.Private = c != nil && aws.ToBool(c.BlockPublicAcls) && aws.ToBool(c.BlockPublicPolicy) && aws.ToBool(c.IgnorePublicAcls) && aws.ToBool(c.RestrictPublicBuckets)
	}
	_, err = a.buckets.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &name, ExpectedBucketOwner: &owner})
	if b.TLSOnly, err = there(doing, on, err); err != nil {
		return b, err
	}
	tags, err := a.buckets.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &name, ExpectedBucketOwner: &owner})
	tagged, err := there(doing, on, err)
	if err != nil {
		return b, err
	}
	if b.Bare = !tagged || len(tags.TagSet) == 0; !b.Bare {
		has := mapOf(tags.TagSet, func(t types.Tag) (key, value *string) { return t.Key, t.Value })
		b.Ours = has[tag] == value
	}
	return b, nil
}

// Foreign reports whether somebody else has made the bucket: it is there, with tags of theirs.
func (b Bucket) Foreign() bool { return b.There && !b.Ours && !b.Bare }

func CreateBucket(name, region string) Call {
	in := &s3.CreateBucketInput{Bucket: &name}
	if region != "us-east-1" { // which cannot be named
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(region)}
	}
	return call("bucket "+name, (*s3.Client).CreateBucket, in)
}

// BlockPublicAccess has nobody make a bucket public, or anything in it.
func BlockPublicAccess(name, owner string) Call {
	all := &types.PublicAccessBlockConfiguration{BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true),
		IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true)}
	return call("bucket "+name, (*s3.Client).PutPublicAccessBlock,
		&s3.PutPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &owner, PublicAccessBlockConfiguration: all})
}

func PutBucketPolicy(name, owner, policy string) Call {
	return call("bucket "+name, (*s3.Client).PutBucketPolicy, &s3.PutBucketPolicyInput{Bucket: &name,
		ExpectedBucketOwner: &owner, Policy: &policy})
}

func TagBucket(name, owner, tag, value string) Call {
	return call("bucket "+name, (*s3.Client).PutBucketTagging, &s3.PutBucketTaggingInput{Bucket: &name,
		ExpectedBucketOwner: &owner, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: &tag, Value: &value}}}})
}

// DeleteBucket deletes a bucket that is empty.
func DeleteBucket(name, owner string) Call {
	return call("bucket "+name, (*s3.Client).DeleteBucket, &s3.DeleteBucketInput{Bucket: &name, ExpectedBucketOwner: &owner})
}

// Objects are the keys of a bucket's objects that begin with the prefix.
func (a *Account) Objects(ctx context.Context, bucket, owner, prefix string) (keys []string, err error) {
	keys, err = every(ctx, s3.NewListObjectsV2Paginator(a.buckets,
		&s3.ListObjectsV2Input{Bucket: &bucket, ExpectedBucketOwner: &owner, Prefix: &prefix}),
		func(p *s3.ListObjectsV2Output) []types.Object { return p.Contents },
		func(o types.Object) string { return aws.ToString(o.Key) })
	return keys, translate("listing bucket "+bucket, "bucket "+bucket, err)
}

// Object reads an object of any bucket, wherever that is; nil if there is none.
func (a *Account) Object(ctx context.Context, bucket, key string) ([]byte, error) {
	get := func(options ...func(*s3.Options)) ([]byte, error) {
		out, err := a.buckets.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key}, options...)
		if err != nil {
			return nil, err
		}
		defer out.Body.Close()
		return io.ReadAll(out.Body)
	}
	content, err := get()
	var elsewhere *awshttp.ResponseError // S3 says where the bucket is
	if errors.As(err, &elsewhere) && elsewhere.HTTPStatusCode() == http.StatusMovedPermanently {
		if region := elsewhere.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
			content, err = get(func(o *s3.Options) { o.Region = region })
		}
	}
	on := "object " + bucket + "/" + key
	if is, err := there("reading "+on, on, err); err != nil || !is {
		return nil, err
	}
	return content, nil
}

// PutObject stores content.
func PutObject(bucket, owner, key string, content []byte) Call {
	in := &s3.PutObjectInput{Bucket: &bucket, ExpectedBucketOwner: &owner, Key: &key}
	c := call("object "+bucket+"/"+key, (*s3.Client).PutObject, in)
	c.do = func(ctx context.Context, a *Account) error {
		again := *in
		again.Body = bytes.NewReader(content)
		_, err := a.buckets.PutObject(ctx, &again)
		return err
	}
	return c
}

// DeleteObject deletes an object.
func DeleteObject(bucket, owner, key string) Call {
	return call("object "+bucket+"/"+key, (*s3.Client).DeleteObject, &s3.DeleteObjectInput{Bucket: &bucket, ExpectedBucketOwner: &owner, Key: &key})
}
