package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// service is who EventBridge is to a function's and a queue's policy.
const service = "events.amazonaws.com"

// job is the delivery of one event to one target.
type job struct {
	*Bridge
	rule    rule
	target  types.Target
	arrival arrival
	input   []byte // what the target gets
	number  int    // in the journal

	requestID string // of the invocation that was accepted
}

// failure is why a target did not take an event: one of the error codes that a dead-letter queue is told, and a sentence.
type failure struct {
	code, message string
	again         bool // another try may help
}

func (j *job) failed(code, format string, args ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, args...)}
}

// broken is a failure of moto's or of this machine's, which says nothing about what AWS would do.
func (j *job) broken(err error) *failure {
	j.work.failed(fmt.Errorf("delivering event %s to %s: %w", j.arrival.ID, *j.target.Arn, err))
	return j.failed("INTERNAL_ERROR", "%v", err)
}

// deliver tries a target once. What is worth another try goes on in the background.
func (b *Bridge) deliver(ctx context.Context, j *job) {
	j.number = b.journal.add(Delivery{EventID: j.arrival.ID, Rule: j.rule.arn, Target: *j.target.Id, TargetARN: *j.target.Arn, Attempts: 1})
	f := j.prepare()
	if f == nil {
		f = j.try(ctx)
	}
	if f == nil || !f.again {
		j.settle(ctx, f, 0, "")
		return
	}
	b.journal.change(j.number, func(d *Delivery) { d.Reason = f.message + "; it will be tried again" })
	b.work.start(func() {
		f, retries, exhausted, err := policyOf(j.target).retry(b.lifetime, b.options.RetryDelay, j.arrival.received, f, j.again)
		if err == nil { // else the bridge is being closed
			j.settle(b.lifetime, f, retries, exhausted)
		}
	})
}

// prepare makes what the target gets of the event.
func (j *job) prepare() *failure {
	var err error
	if j.input, err = input(j.target, j.rule, j.arrival); err != nil {
		return j.failed("INVALID_JSON", "%v", err)
	}
	return nil
}

// try hands the event over.
func (j *job) try(ctx context.Context) *failure {
	to, err := arn.Parse(*j.target.Arn)
	switch {
	case err != nil:
		return j.failed("INVALID_PARAMETER", "%s is not an ARN", *j.target.Arn)
	case to.Service == "lambda":
		return j.toFunction(ctx, to)
	case to.Service == "sqs":
		return j.toQueue(ctx)
	}
	return j.failed("INVALID_PARAMETER", "the bridge delivers to Lambda functions and SQS queues only")
}

func (j *job) again(ctx context.Context) *failure {
	j.journal.change(j.number, func(d *Delivery) { d.Attempts++ })
	return j.try(ctx)
}

// settle writes down how it ended, and moves an event that was not delivered to the target's dead-letter queue.
func (j *job) settle(ctx context.Context, f *failure, retries int, exhausted string) {
	if f == nil {
		j.journal.change(j.number, func(d *Delivery) { d.Delivered, d.Reason, d.RequestID = true, "", j.requestID })
		return
	}
	reason, queue := f.message, ""
	if j.target.DeadLetterConfig != nil && j.target.DeadLetterConfig.Arn != nil {
		if err := j.deadLetter(ctx, f, retries, exhausted); err != nil {
			reason += "; " + err.Error()
		} else {
			queue = *j.target.DeadLetterConfig.Arn
		}
	}
	j.journal.change(j.number, func(d *Delivery) { d.Reason, d.DeadLetter = reason, queue })
}

// toFunction invokes a function that exists and whose policy allows it.
func (j *job) toFunction(ctx context.Context, to arn.ARN) *failure {
	name, qualifier := functionOf(to)
	client := j.moto.lambda(to.Region)
	var none *lambdatypes.ResourceNotFoundException
	_, err := client.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name, Qualifier: qualifier})
	if errors.As(err, &none) {
		return j.failed("NO_RESOURCE", "there is no such function")
	} else if err != nil {
		return j.broken(err)
	}
	document := ""
	out, err := client.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &name, Qualifier: qualifier})
	if err == nil {
		document = aws.ToString(out.Policy)
	} else if !errors.As(err, &none) {
		return j.broken(err)
	}
	if f := j.permitted("the function's policy", document, "lambda:InvokeFunction", to.String()); f != nil {
		return f
	}
	j.requestID, err = j.invoke(ctx, to.Region, to.String(), j.input)
	return j.refused(err)
}

// refused tells what a refusal of Invoke means to EventBridge.
func (j *job) refused(err error) *failure {
	var refusal *lambdalocal.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refusal):
		return j.broken(err)
	case refusal.StatusCode == 429:
		return &failure{code: "THROTTLING", message: refusal.Error(), again: true}
	case refusal.StatusCode >= 500:
		return &failure{code: "ERROR_FROM_TARGET", message: refusal.Error(), again: true}
	case refusal.StatusCode == 404:
		return j.failed("NO_RESOURCE", "%v", refusal)
	}
	return j.failed("INVALID_PARAMETER", "%v", refusal)
}

func (j *job) toQueue(ctx context.Context) *failure {
	q, f := j.openQueue(ctx, *j.target.Arn)
	if f != nil {
		return f
	}
	group := ""
	if j.target.SqsParameters != nil {
		group = aws.ToString(j.target.SqsParameters.MessageGroupId)
	}
	if err := q.send(ctx, j.input, group, nil); err != nil {
		return j.broken(err)
	}
	return nil
}

// openQueue finds a queue whose policy lets the rule write to it.
func (j *job) openQueue(ctx context.Context, at string) (queue, *failure) {
	q, err := j.moto.queue(ctx, at)
	if errors.Is(err, errNoQueue) {
		return q, j.failed("NO_RESOURCE", "%v", err)
	} else if err != nil {
		return q, j.broken(err)
	}
	document, err := q.policy(ctx)
	if err != nil {
		return q, j.broken(err)
	}
	return q, j.permitted("the queue's policy", document, "sqs:SendMessage", at)
}

// permitted asks a policy whether it lets the rule do it.
func (j *job) permitted(whose, document, action, resource string) *failure {
	why := policyAllows(document, request{principal: service, action: action, resource: resource,
		sourceARN: j.rule.arn, sourceAccount: j.arrival.Account})
	if why == nil {
		return nil
	}
	return j.failed("NO_PERMISSIONS", "%s does not allow %s to %s for %s: %v", whose, service, action, j.rule.arn, why)
}

// deadLetter writes the event, with what there is to know of its failure, to the target's dead-letter queue ("Using
// dead-letter queues to process undelivered events", EventBridge User Guide).
func (j *job) deadLetter(ctx context.Context, f *failure, retries int, exhausted string) error {
	q, closed := j.openQueue(ctx, *j.target.DeadLetterConfig.Arn)
	if closed != nil {
		return fmt.Errorf("the dead-letter queue did not get it: %s", closed.message)
	}
	attributes := map[string]string{
		"RULE_ARN":       j.rule.arn,
		"TARGET_ARN":     *j.target.Arn,
		"ERROR_CODE":     f.code,
		"ERROR_MESSAGE":  f.message,
		"RETRY_ATTEMPTS": fmt.Sprint(retries),
	}
	if exhausted != "" {
		attributes["EXHAUSTED_RETRY_CONDITION"] = exhausted
	}
	if err := q.send(ctx, j.arrival.body, "", attributes); err != nil {
		return errors.New(j.broken(err).message)
	}
	return nil
}
