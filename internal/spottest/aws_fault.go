package spottest

import (
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// AWSError is an error response. Without a code, there was no response.
type AWSError struct {
	Code       string
	Message    string
	HTTPStatus int
	// Means is the classification: spot.ErrNotFound, spot.ErrPermanent, or nil if a retry may help. It is independent
	// of the error table in internal/aws; the contract suite compares the two.
	Means error
}

func (e *AWSError) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}

func (e *AWSError) Unwrap() error { return e.Means }

// AnyOperation matches all operations in Fail and Delay.
const AnyOperation = ""

// The supported operations, by service.
func ec2Operations() []string {
	return []string{"DescribeInstances", "CreateTags"}
}
func scalingOperations() []string {
	return []string{
		"DescribeAutoScalingInstances", "DescribeAutoScalingGroups", "DescribeLifecycleHooks", "DetachInstances",
		"RecordLifecycleActionHeartbeat", "CompleteLifecycleAction",
	}
}

// IsEC2 and IsAutoScaling report which service an operation belongs to; both are false for an unsupported one.
func IsEC2(op string) bool         { return slices.Contains(ec2Operations(), op) }
func IsAutoScaling(op string) bool { return slices.Contains(scalingOperations(), op) }

func mustKnow(op string) { awsRequire(IsEC2(op) || IsAutoScaling(op), "AWS has no operation %q", op) }

// Fault is an injected error.
type Fault struct {
	says func(op string) *AWSError
	lost bool // the call takes effect, but the response is lost
}

// perService returns a fault with a different error for each service.
func perService(ec2, scaling AWSError) Fault {
	return Fault{says: func(op string) *AWSError {
		if IsEC2(op) {
			return &ec2
		}
		return &scaling
	}}
}

// Answer returns a fault with this error.
func Answer(e AWSError) Fault { return perService(e, e) }

// Throttled returns the throttling error of the service.
func Throttled() Fault {
	return perService(
		AWSError{Code: "RequestLimitExceeded", Message: "Request limit exceeded.", HTTPStatus: 503},
		AWSError{Code: "Throttling", Message: "Rate exceeded", HTTPStatus: 400})
}

// Contention returns the error for a group that is being updated. EC2 has none and returns an internal error.
func Contention() Fault {
	return perService(internalError("InternalError"), AWSError{
		Code: "ResourceContention",
		Message: "You already have a pending update to an Amazon EC2 Auto Scaling resource " +
			"(for example, an Auto Scaling group, instance, or load balancer).",
		HTTPStatus: 500,
	})
}

// Broken returns an internal error of the service.
func Broken() Fault {
	return perService(internalError("InternalError"), internalError("InternalFailure"))
}

func internalError(code string) AWSError {
	return AWSError{Code: code, Message: "An internal error has occurred", HTTPStatus: 500}
}

// Role is the caller in error messages.
const Role = "arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/kops-spot"

// Denied returns the error for a call that IAM denies.
func Denied() Fault {
	return Fault{says: func(op string) *AWSError {
		if IsEC2(op) {
			return &AWSError{
				Code: "UnauthorizedOperation",
				Message: "You are not authorized to perform this operation. User: " + Role + " is not authorized to perform: ec2:" + op +
					" because no identity-based policy allows the ec2:" + op + " action. Encoded authorization failure message: RW5jb2RlZA",
				HTTPStatus: 403, Means: spot.ErrPermanent,
			}
		}
		return &AWSError{
			Code: "AccessDenied",
			Message: "User: " + Role + " is not authorized to perform: autoscaling:" + op +
				" because no identity-based policy allows the autoscaling:" + op + " action",
			HTTPStatus: 403, Means: spot.ErrPermanent,
		}
	}}
}

// Unreachable breaks the connection before the call reaches AWS. See Delay for a connection that hangs.
func Unreachable() Fault { return Answer(AWSError{Message: "connection reset by peer"}) }

// AnswerLost breaks the connection after the call took effect or was refused.
func AnswerLost() Fault {
	f := Answer(AWSError{Message: "connection reset by peer, after the call took effect"})
	f.lost = true
	return f
}

type plannedFault struct {
	op    string
	left  int // calls still to fail; negative: all
	fault Fault
}

// Fail makes the next n calls of an operation (or AnyOperation) fail; with n < 0, all calls until Heal. Faults apply in
// the order in which they were added.
func (a *AWS) Fail(op string, n int, f Fault) {
	if op != AnyOperation {
		mustKnow(op)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, &plannedFault{op: op, left: n, fault: f})
}

// Delay sets the latency of an operation (or AnyOperation). An hour makes calls time out.
func (a *AWS) Delay(op string, d time.Duration) {
	if op != AnyOperation {
		mustKnow(op)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.latency[op] = d
}

// Heal removes all faults and delays.
func (a *AWS) Heal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = nil
	clear(a.latency)
}

// takeFault returns the fault for this call. The lock is held.
func (a *AWS) takeFault(op string) (Fault, bool) {
	for _, p := range a.faults {
		if (p.op == op || p.op == AnyOperation) && p.left != 0 {
			p.left--
			return p.fault, true
		}
	}
	return Fault{}, false
}
