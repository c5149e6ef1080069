package aws

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/castai/kops-spot/internal/spot"
)

// errorClass groups AWS error codes by what the caller can do.
type errorClass int

const (
	retryable errorClass = iota // throttling, contention, server errors, unknown codes
	notFound
	denied      // by IAM
	credentials // the credentials or the clock are not accepted
	invalid     // the request can never succeed
)

// classify is the table of AWS error codes. Sources: AWS documentation, "Error codes for the Amazon EC2 API" and
// "Common errors" of EC2 Auto Scaling. All other codes are retryable, such as RequestLimitExceeded, Throttling,
// ResourceContention (HTTP 500), ScalingActivityInProgress, InternalError and ServiceUnavailable.
func classify(code string) errorClass {
	switch code {
	case "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceId",
		"InvalidID": // CreateTags
		return notFound
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException":
		return denied
	case "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "MissingAuthenticationToken",
		"SignatureDoesNotMatch", "IncompleteSignature", "InvalidSignatureException",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return credentials
	case "ResourceNotFoundException", "ParameterNotFound", // a configured secret or parameter must exist
		"ValidationError", "ValidationException", "InvalidParameterValue", "MissingParameter", "TagLimitExceeded",
		"TagPolicyViolation", "OptInRequired", "OperationNotPermitted":
		return invalid
	}
	return retryable
}

// translate maps an error of the SDK to spot's errors.
//
// It repeats only the code and the first line of AWS's message. The following lines of a signature error contain the
// canonical request with the session token. Errors of the class credentials may quote the Authorization header in the
// first line, so only their code is repeated.
func translate(op, doing, on string, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %w", doing, withoutOperation(err))
	}
	code, said := api.ErrorCode(), firstLine(api.ErrorMessage())
	switch classify(code) {
	case notFound:
		return fmt.Errorf("%s: %w: %s: %s", doing, spot.ErrNotFound, code, said)
	case denied:
		where := ""
		if on != "" {
			where = " on " + on
		}
		return fmt.Errorf("%s: %w: %s: %s; allow %s%s to %s", doing, spot.ErrPermanent, code, said, op, where, principal(said))
	case credentials:
		// These messages of STS contain only two dates.
		if strings.HasPrefix(said, "Signature expired") || strings.HasPrefix(said, "Signature not yet current") {
			return fmt.Errorf("%s: %w: AWS rejects the local clock (%s: %s); correct it", doing, spot.ErrPermanent, code, said)
		}
		return fmt.Errorf("%s: %w: AWS rejects the credentials (%s); renew them and check the clock",
			doing, spot.ErrPermanent, code)
	case invalid:
		return fmt.Errorf("%s: %w: %s: %s", doing, spot.ErrPermanent, code, said)
	}
	return fmt.Errorf("%s: %s: %s", doing, code, said)
}

// withoutOperation drops the SDK's prefix ("operation error EC2: DescribeInstances, https response error StatusCode: 0,
// request send failed").
func withoutOperation(err error) error {
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		return send.Err
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// firstLine returns the first line of a message, without the encoded details of a denial, which only
// sts:DecodeAuthorizationMessage can read.
func firstLine(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message, _, _ = strings.Cut(message, "Encoded authorization failure message")
	return strings.TrimRight(message, " .")
}

// principal returns the ARN that was denied, if AWS names it.
func principal(message string) string {
	if _, after, ok := strings.Cut(message, "User: arn:"); ok {
		arn, _, _ := strings.Cut(after, " ")
		return "arn:" + arn
	}
	return "the role this runs as"
}
