package awsadmin

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

var (
	ErrDenied   = errors.New("access denied")
	ErrNotEmpty = errors.New("the bucket is not empty")
	ErrRefused  = errors.New("CloudFormation refuses it") // a template with its parameters
	ErrNotFound = errors.New("not found")

	// ErrOverruled means a denial that no permission of the operator's own can change. It comes with ErrDenied.
	ErrOverruled = errors.New("another policy overrules the operator's permissions")

	errExists      = errors.New("already exists")
	errCredentials = errors.New("AWS does not accept the credentials")
)

// errorCodes are the error codes of all services by their meaning.
var errorCodes = map[error][]string{
	ErrDenied: {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"},
	ErrNotFound: {"NoSuchEntity", "ResourceNotFoundException", "NoSuchEntityException", "NoSuchBucket",
		"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"},
	ErrNotEmpty: {"BucketNotEmpty"},
	errExists:   {"EntityAlreadyExists", "EntityAlreadyExistsException", "ResourceExistsException"},
	errCredentials: {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidSignatureException", "IncompleteSignature",
		"MissingAuthenticationToken"},
}

// A delay is a kind of error that passes by itself, since AWS is eventually consistent: a service does not see at once
// what another request, or another service, has changed.
type delay struct {
	codes  []string      // error codes; nil for the reasons of stack events, which have none
	says   string        // a part of the message, in lower case; empty for any
	limit  time.Duration // after which the error is final
	pause  time.Duration // between two tries
	advice string        // for a final error; NAME stands for the resource's name
}

// delays are all such kinds. Call and stack operations retry by this table alone. The SDK retries throttled requests
// itself: see throttleTries.
var delays = []delay{
	{codes: errorCodes[ErrNotFound], limit: 20 * time.Second, pause: 2 * time.Second}, // created a moment ago
	{codes: []string{"MalformedPolicyDocument", "MalformedPolicyDocumentException", "MalformedPolicy"},
		says: "invalid principal", limit: 20 * time.Second, pause: 2 * time.Second},
	{codes: []string{"ConcurrentModification", "ConcurrentModificationException", "EntityTemporarilyUnmodifiable"},
		limit: 20 * time.Second, pause: 2 * time.Second},
	{codes: []string{"InvalidRequestException"}, says: "for deletion", limit: 30 * time.Second, pause: 3 * time.Second,
		advice: "if somebody has scheduled its deletion, restore it with aws secretsmanager restore-secret " +
			"--secret-id NAME; otherwise run this again in a minute"},
	{codes: []string{"OperationAborted"}, limit: time.Minute, pause: 5 * time.Second,
		advice: "S3 may still be deleting the bucket NAME: run this again in a few minutes"},
	{codes: []string{"ValidationError"}, says: "specified bucket does not exist", // of a template
		limit: 30 * time.Second, pause: 3 * time.Second},

	// Of Lambda, in a stack: the role, or its policies, are new.
	{says: "cannot be assumed by lambda", pause: 10 * time.Second},
	{says: "execution role does not have permissions to call", pause: 10 * time.Second},
	{says: "nosuchbucket", pause: 10 * time.Second},
	{says: "wait 60 seconds after deleting", pause: time.Minute}, // a queue of the same name
	{says: "queuedeletedrecently", pause: time.Minute},
}

// throttleTries makes the SDK retry a throttled request for about half a minute; its default is three tries.
const throttleTries = 6

// delayOf returns the kind of delay of a response with an error, if it is one.
func delayOf(err error) *delay {
	code, message := apiError(err)
	i := slices.IndexFunc(delays, func(d delay) bool {
		return slices.Contains(d.codes, code) && strings.Contains(strings.ToLower(message), d.says)
	})
	if i < 0 {
		return nil
	}
	return &delays[i]
}

// Passes reports whether the reason of a failed stack event passes by itself, and how long that takes.
func Passes(reason string) (after time.Duration, passes bool) {
	reason = strings.ToLower(reason)
	for _, d := range delays {
		if d.codes == nil && strings.Contains(reason, d.says) {
			return d.pause, true
		}
	}
	return 0, false
}

// overruling matches the policy that a denial names, unless it is a missing permission of the operator's own.
var overruling = regexp.MustCompile(`(?:explicit deny in an? |because no )((?:[A-Za-z-]+ )*(?:policy|boundary))`)

// denial returns the end of the error for a denied action: the permission to add or, if adding it cannot help, whom to
// ask.
func denial(action, message string) error {
	what := overruling.FindStringSubmatch(message)
	switch {
	case what != nil && !strings.Contains(what[0], "no identity-based policy"):
		return fmt.Errorf("%w: ask whoever manages the %s to allow it", ErrOverruled, what[1])
	case strings.Contains(message, "explicit deny"):
		return fmt.Errorf("%w: ask whoever manages the policies of your organization to allow it", ErrOverruled)
	}
	return errors.New("allow " + action)
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
	if strings.HasPrefix(action, "autoscaling:") && code == "ValidationError" && noneFound.MatchString(message) {
		return fmt.Errorf("calling %s: %w: %s", action, ErrNotFound, message)
	}
	for is, codes := range errorCodes {
		switch {
		case !slices.Contains(codes, code):
		case is == errCredentials:
			return fmt.Errorf("calling %s: %w (%s): log in again, and check the clock", action, is, code)
		case is == ErrDenied:
			return fmt.Errorf("calling %s: %w: %s: %s: %w", action, is, code, message, denial(action, message))
		case is == errExists:
			return fmt.Errorf("calling %s: %w: %s: it did not exist when the plan was made: run this again", action, is, message)
		default:
			return fmt.Errorf("calling %s: %w: %s", action, is, message)
		}
	}
	return fmt.Errorf("calling %s: %s: %s", action, code, message)
}

// Translate adds what to do to an error of a client that another package has created.
func Translate(err error) error { return translate("", err) }

// noneFound matches what Auto Scaling says of a group or a lifecycle hook that does not exist: it has no code for that.
var noneFound = regexp.MustCompile(`(?i)not found|no lifecycle hook found`)

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
	services = map[string]string{"Auto Scaling": "autoscaling", "CloudFormation": "cloudformation",
		"CloudWatch Logs": "logs", "EC2": "ec2", "EventBridge": "events", "IAM": "iam",
		"Lambda": "lambda", "Pricing": "pricing", "S3": "s3", "Secrets Manager": "secretsmanager", "SQS": "sqs", "STS": "sts"}
	operations = map[string]string{"Invoke": "InvokeFunction", "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket",
		"GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock"}
)

// notSDK is the action of an error that is not the SDK's.
const notSDK = "AWS"

// operationOf returns the action that failed, as IAM policies write it, and the cause.
func operationOf(err error) (action string, cause error) {
	var of *smithy.OperationError
	if !errors.As(err, &of) {
		return notSDK, err
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
