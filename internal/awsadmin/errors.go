package awsadmin

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"
)

var (
	// ErrDenied means that IAM does not allow a call to whoever runs this.
	ErrDenied = errors.New("not allowed")

	// ErrNotEmpty means that there is something in a bucket that is to be deleted.
	ErrNotEmpty = errors.New("it is not empty")

	// ErrRefused means that CloudFormation does not take a template with its parameters.
	ErrRefused = errors.New("CloudFormation refuses it")

	// ErrNotFound means that there is no such thing.
	ErrNotFound = errors.New("there is none")
)

// translate makes an error of the SDK one of ours, which names the action that is missing where IAM says no.
//
// Of AWS's answer only the code and the first line of the message are repeated, and of what is said about credentials only
// the code: what follows may quote the request.
func translate(doing, on string, err error) error {
	if err == nil {
		return nil
	}
	action, cause := operationOf(err)
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %w", doing, cause)
	}
	code, said := api.ErrorCode(), firstLine(api.ErrorMessage())
	switch code {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
		where := ""
		if on != "" {
			where = " on " + on
		}
		return fmt.Errorf("%s: %w: %s: %s: what is missing is %s%s", doing, ErrDenied, code, said, action, where)
	case "NoSuchEntity", "ResourceNotFoundException", "NoSuchEntityException":
		return fmt.Errorf("%s: %w: %s", doing, ErrNotFound, said)
	case "BucketNotEmpty":
		return fmt.Errorf("%s: %w: %s", doing, ErrNotEmpty, said)
	case "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException",
		"RequestExpired", "InvalidSignatureException", "IncompleteSignature", "MissingAuthenticationToken":
		return fmt.Errorf("%s: AWS does not accept the credentials (%s): log in again, and check the clock", doing, code)
	}
	return fmt.Errorf("%s: %s: %s", doing, code, said)
}

// Names by which IAM calls services, and operations where it does not call them as the SDK does.
var (
	services = map[string]string{"CloudFormation": "cloudformation", "EC2": "ec2", "EventBridge": "events", "IAM": "iam",
		"Lambda": "lambda", "S3": "s3", "Secrets Manager": "secretsmanager", "STS": "sts"}
	operations = map[string]string{"Invoke": "InvokeFunction", "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket",
		"GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock"}
)

// operationOf is what has failed as IAM writes it, and why; without the former if no operation of the SDK has.
func operationOf(err error) (action string, cause error) {
	var of *smithy.OperationError
	if !errors.As(err, &of) {
		return "", err
	}
	return services[of.ServiceID] + ":" + cmp.Or(operations[of.OperationName], of.OperationName), of.Err
}

// unlessNone is the error of a look, where it is an answer that there is none.
func unlessNone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// firstLine is the first line of a message, without the encoded details of a denial: a thousand characters that only
// sts:DecodeAuthorizationMessage can read.
func firstLine(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message, _, _ = strings.Cut(message, "Encoded authorization failure message")
	return strings.TrimRight(message, " .")
}
