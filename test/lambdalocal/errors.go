package lambdalocal

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Error is a refusal by the Invoke API: the function did not run. An error of
// the function itself is no Error but a Result with its FunctionError set.
type Error struct {
	StatusCode int
	Code       string // AWS's name of the exception
	Reason     string // of a TooManyRequestsException
	Message    string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Reasons of a TooManyRequestsException.
const (
	ReasonAccountConcurrency  = "ConcurrentInvocationLimitExceeded"
	ReasonReservedConcurrency = "ReservedFunctionConcurrentInvocationLimitExceeded"
)

func errNotFound(arn string) *Error {
	return &Error{StatusCode: http.StatusNotFound, Code: "ResourceNotFoundException", Message: "Function not found: " + arn}
}

func errValidation(field, value, constraint string) *Error {
	return &Error{StatusCode: http.StatusBadRequest, Code: "ValidationException",
		Message: fmt.Sprintf("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must be %s", value, field, constraint)}
}

func errQualifierMismatch() *Error {
	return &Error{StatusCode: http.StatusBadRequest, Code: "InvalidParameterValueException",
		Message: "The derived qualifier from the function name does not match the specified qualifier."}
}

func errMalformed() *Error {
	return &Error{StatusCode: http.StatusBadRequest, Code: "InvalidRequestContentException",
		Message: "Could not parse request body into json"}
}

func errTooLarge(size, limit int, typ InvocationType) *Error {
	return &Error{StatusCode: http.StatusRequestEntityTooLarge, Code: "RequestTooLargeException",
		Message: fmt.Sprintf("%d byte payload is too large for the %s invocation type (limit %d bytes)", size, typ, limit)}
}

func errThrottled(reason string) *Error {
	return &Error{StatusCode: http.StatusTooManyRequests, Code: "TooManyRequestsException", Reason: reason, Message: "Rate Exceeded."}
}

func errService(message string) *Error {
	return &Error{StatusCode: http.StatusInternalServerError, Code: "ServiceException", Message: message}
}

// body is the error's JSON. The key of the message differs by exception, as it
// does on AWS: "Message" for a missing function, "message" for the others.
func (e *Error) body() []byte {
	fields := map[string]string{"Type": "User"}
	if e.StatusCode >= 500 {
		fields["Type"] = "Service"
	}
	if e.Reason != "" {
		fields["Reason"] = e.Reason
	}
	if e.StatusCode == http.StatusNotFound {
		fields["Message"] = e.Message
	} else {
		fields["message"] = e.Message
	}
	return mustJSON(fields)
}

// mustJSON encodes maps of strings, which cannot fail.
func mustJSON(v map[string]string) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
