package aws

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/castai/kops-spot/internal/spot"
)

// answer is what an error code of AWS means to the caller.
type answer int

const (
	again       answer = iota // throttling, contention, an error of theirs, a code we do not know: try again
	missing                   // there is no such thing
	denied                    // IAM says no
	credentials               // who we are, or when, is not accepted
	refused                   // the request as such can never succeed
)

// meaning is the one table of AWS error codes. Sources: AWS documentation, "Error codes for the Amazon EC2 API" and
// "Common errors" of EC2 Auto Scaling. What is not listed is worth another try: among others RequestLimitExceeded,
// Throttling, ResourceContention (HTTP 500), ScalingActivityInProgress, InternalError, ServiceUnavailable.
func meaning(code string) answer {
	switch code {
	case "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidInstanceId",
		"InvalidID": // what CreateTags says of an id it does not know
		return missing
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException":
		return denied
	case "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "MissingAuthenticationToken",
		"SignatureDoesNotMatch", "IncompleteSignature", "InvalidSignatureException",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return credentials
	case "ResourceNotFoundException", "ParameterNotFound", // a secret, a parameter: configured, so it must be there
		"ValidationError", "ValidationException", "InvalidParameterValue", "MissingParameter", "TagLimitExceeded", "TagPolicyViolation", "OptInRequired",
		"OperationNotPermitted":
		return refused
	}
	return again
}

// translate makes an error of the SDK one of ours.
//
// Of AWS's answer only the code and the first line of the message are repeated. What follows the first line of a
// signature error is the canonical request, session token included, and some of these errors quote the Authorization
// header in the first line too: of the class credentials, nothing but the code is repeated.
func translate(op, doing, on string, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %w", doing, withoutOperation(err))
	}
	code, said := api.ErrorCode(), firstLine(api.ErrorMessage())
	switch meaning(code) {
	case missing:
		return fmt.Errorf("%s: %w: %s: %s", doing, spot.ErrNotFound, code, said)
	case denied:
		where := ""
		if on != "" {
			where = " on " + on
		}
		return fmt.Errorf("%s: %w: %s: %s; allow %s%s to %s", doing, spot.ErrPermanent, code, said, op, where, principal(said))
	case credentials:
		// Of a clock that is too far off, STS says so in words that hold nothing but two dates.
		if strings.HasPrefix(said, "Signature expired") || strings.HasPrefix(said, "Signature not yet current") {
			return fmt.Errorf("%s: %w: AWS refuses our clock (%s: %s); set it right", doing, spot.ErrPermanent, code, said)
		}
		return fmt.Errorf("%s: %w: AWS does not accept the credentials (%s); renew those this runs with, and check the clock",
			doing, spot.ErrPermanent, code)
	case refused:
		return fmt.Errorf("%s: %w: %s: %s", doing, spot.ErrPermanent, code, said)
	}
	return fmt.Errorf("%s: %s: %s", doing, code, said)
}

// withoutOperation drops what the SDK puts before the cause ("operation error EC2: DescribeInstances, https response
// error StatusCode: 0, request send failed"): what was being done is said already.
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

// firstLine is the first line of a message of AWS, without the encoded details of a denial: a thousand characters and
// more that only sts:DecodeAuthorizationMessage can read.
func firstLine(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	message, _, _ = strings.Cut(message, "Encoded authorization failure message")
	return strings.TrimRight(message, " .")
}

// principal is who was denied, if AWS says so: an ARN of a role's session, or of a user.
func principal(message string) string {
	if _, after, ok := strings.Cut(message, "User: arn:"); ok {
		arn, _, _ := strings.Cut(after, " ")
		return "arn:" + arn
	}
	return "the role this runs as"
}
