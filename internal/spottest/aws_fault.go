package spottest

import (
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// AWSError is what AWS answers when it refuses or fails. Without a code, no answer came.
type AWSError struct {
	Code       string
	Message    string
	HTTPStatus int
	// Means is what a caller can make of it: spot.ErrNotFound, spot.ErrPermanent, or nil if another try may help. It is what
	// the model says, not what a table of codes says; the contract suite holds both to be the same.
	Means error
}

func (e *AWSError) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}

func (e *AWSError) Unwrap() error { return e.Means }

// AnyOperation stands for all operations in Fail and Delay.
const AnyOperation = ""

// The operations of the model, by service.
func ec2Operations() []string {
	return []string{"DescribeInstances", "CreateTags"}
}
func scalingOperations() []string {
	return []string{
		"DescribeAutoScalingInstances", "DescribeAutoScalingGroups", "DescribeLifecycleHooks", "DetachInstances",
		"DescribeScalingActivities", "RecordLifecycleActionHeartbeat", "CompleteLifecycleAction",
	}
}

// IsEC2 and IsAutoScaling tell which service an operation belongs to; neither means that the model does not have it.
func IsEC2(op string) bool         { return slices.Contains(ec2Operations(), op) }
func IsAutoScaling(op string) bool { return slices.Contains(scalingOperations(), op) }

func mustKnow(op string) { awsMust(IsEC2(op) || IsAutoScaling(op), "AWS has no operation %q", op) }

// Fault is something that goes wrong with a call.
type Fault struct {
	says func(op string) *AWSError
	lost bool // the call takes effect all the same
}

// perService is a fault that EC2 and Auto Scaling put in different words.
func perService(ec2, scaling AWSError) Fault {
	return Fault{says: func(op string) *AWSError {
		if IsEC2(op) {
			return &ec2
		}
		return &scaling
	}}
}

// Answer is a fault of one's own making: this error.
func Answer(e AWSError) Fault { return perService(e, e) }

// Throttled is more calls than the account may make. Each service has its own code and status.
func Throttled() Fault {
	return perService(
		AWSError{Code: "RequestLimitExceeded", Message: "Request limit exceeded.", HTTPStatus: 503},
		AWSError{Code: "Throttling", Message: "Rate exceeded", HTTPStatus: 400})
}

// Contention is a group that is being changed by somebody else. EC2 knows no such thing and answers an internal error.
func Contention() Fault {
	return perService(internalError("InternalError"), AWSError{
		Code:       "ResourceContention",
		Message:    "You already have a pending update to an Amazon EC2 Auto Scaling resource (for example, an Auto Scaling group, instance, or load balancer).",
		HTTPStatus: 500,
	})
}

// Broken is an error of AWS's own.
func Broken() Fault {
	return perService(internalError("InternalError"), internalError("InternalFailure"))
}

func internalError(code string) AWSError {
	return AWSError{Code: code, Message: "An internal error has occurred", HTTPStatus: 500}
}

// Role is who calls, in what the account says when it denies something.
const Role = "arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/kops-spot"

// Denied is a call that no policy allows.
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

// Unreachable is a connection that breaks before the call reaches AWS. For a connection that swallows everything, see
// Delay.
func Unreachable() Fault { return Answer(AWSError{Message: "connection reset by peer"}) }

// AnswerLost is a connection that breaks after the call took effect.
func AnswerLost() Fault {
	f := Answer(AWSError{Message: "connection reset by peer, after the call took effect"})
	f.lost = true
	return f
}

type plannedFault struct {
	op    string
	left  int // how many calls it still hits; negative: all
	fault Fault
}

// Fail lets the next n calls of an operation (or of AnyOperation) fail; n < 0: all, until Heal. Faults of one operation
// hit one after another, in the order in which they were planned.
func (a *AWS) Fail(op string, n int, f Fault) {
	if op != AnyOperation {
		mustKnow(op)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, &plannedFault{op: op, left: n, fault: f})
}

// Delay makes every call of an operation (or of AnyOperation) take this long; an hour is a black hole, 0 ends it.
func (a *AWS) Delay(op string, d time.Duration) {
	if op != AnyOperation {
		mustKnow(op)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.latency[op] = d
}

// Heal ends all faults and delays.
func (a *AWS) Heal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = nil
	clear(a.latency)
}

// takeFault is the fault that hits this call. The lock is held.
func (a *AWS) takeFault(op string) (Fault, bool) {
	for _, p := range a.faults {
		if (p.op == op || p.op == AnyOperation) && p.left != 0 {
			p.left--
			return p.fault, true
		}
	}
	return Fault{}, false
}
