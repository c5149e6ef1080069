package awsadmin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
)

var (
	ErrDenied   = errors.New("access denied")
	ErrNotEmpty = errors.New("the bucket is not empty")
	ErrRefused  = errors.New("CloudFormation refuses it") // a template with its parameters
	ErrNotFound = errors.New("not found")

	errCredentials = errors.New("AWS does not accept the credentials")
)

// errorCodes are the error codes of all services by their meaning.
var errorCodes = map[error][]string{
	ErrDenied:   {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"},
	ErrNotFound: {"NoSuchEntity", "ResourceNotFoundException", "NoSuchEntityException"},
	ErrNotEmpty: {"BucketNotEmpty"},
	errCredentials: {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidSignatureException", "IncompleteSignature",
		"MissingAuthenticationToken"},
}

// translate adds the call and the resource to an error of the SDK, and what to do. A denial names the missing action.
//
// Of the response it repeats only the code and the first line of the message, and of a credentials error only the code:
// the rest may quote the request.
func translate(on string, err error) error {
	if err == nil {
		return nil
	}
	action, cause := operationOf(err)
	if on != "" {
		action += " on " + on
	}
	code, message := apiError(err)
	if code == "" {
		return fmt.Errorf("calling %s: %w", action, cause)
	}
	for is, codes := range errorCodes {
		switch {
		case !slices.Contains(codes, code):
		case is == errCredentials:
			return fmt.Errorf("calling %s: %w (%s): log in again, and check the clock", action, is, code)
		case is == ErrDenied:
			return fmt.Errorf("calling %s: %w: %s: %s: allow %s", action, is, code, message, action)
		default:
			return fmt.Errorf("calling %s: %w: %s", action, is, message)
		}
	}
	return fmt.Errorf("calling %s: %s: %s", action, code, message)
}

// apiError returns the code of an error response and the first line of its message.
func apiError(err error) (code, message string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return "", ""
	}
	return api.ErrorCode(), firstLine(api.ErrorMessage())
}

// Names that IAM policies use where they differ from the SDK's.
var (
	services = map[string]string{"CloudFormation": "cloudformation", "EC2": "ec2", "EventBridge": "events", "IAM": "iam",
		"Lambda": "lambda", "S3": "s3", "Secrets Manager": "secretsmanager", "STS": "sts"}
	operations = map[string]string{"Invoke": "InvokeFunction", "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket",
		"GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock"}
)

// operationOf returns the action that failed, as IAM policies write it, and the cause.
func operationOf(err error) (action string, cause error) {
	var of *smithy.OperationError
	if !errors.As(err, &of) {
		return "AWS", err
	}
	return services[of.ServiceID] + ":" + cmp.Or(operations[of.OperationName], of.OperationName), of.Err
}

// unlessNone drops ErrNotFound.
func unlessNone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// firstLine returns the first line of a message, without the encoded details of a denial: a thousand characters that
// only sts:DecodeAuthorizationMessage can read.
func firstLine(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message, _, _ = strings.Cut(message, "Encoded authorization failure message")
	return strings.TrimRight(message, " .")
}
