package rehearsal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/castai/kops-spot/internal/spot"
)

// record is what Lambda writes to a destination of a function ("Capturing records of Lambda asynchronous invocations").
type record struct {
	RequestContext struct {
		Condition   string `json:"condition"`
		FunctionARN string `json:"functionArn"`
	} `json:"requestContext"`
	RequestPayload struct {
		ID string `json:"id"`
	} `json:"requestPayload"`
	ResponsePayload json.RawMessage `json:"responsePayload"`
}

const (
	// hidden is how long a record that we have looked at is hidden from others, in seconds. Records are theirs: none is
	// deleted, ours neither, and all come back by themselves. It is more than a look takes, so that one look does not
	// find the same records for ever.
	hidden = 5

	// waited is how long a look waits for a record, in seconds.
	waited = 2

	most = 10 // records of one look, and SQS's own limit
)

// CheckQueue is an error if the queue cannot be read. It may hide a record from others for a second.
func (s *Stage) CheckQueue(ctx context.Context, queue string) error {
	_, err := s.queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(queue), MaxNumberOfMessages: 1, VisibilityTimeout: 1})
	if err != nil {
		return fmt.Errorf("reading the queue %s: %w", queue, err)
	}
	return nil
}

// FromQueue waits for the rehearsal's record in the queue that the function's destinations write to. Functions of other
// clusters get the event too, and may write to the same queue that it is none of theirs: only an outcome says of which
// cluster it is, so a failure counts when nothing better has come.
func (s *Stage) FromQueue(ctx context.Context, queue, id, cluster string) (spot.Outcome, error) {
	var failed error
	for ctx.Err() == nil {
		out, err := s.queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: aws.String(queue),
			MaxNumberOfMessages: most, VisibilityTimeout: hidden, WaitTimeSeconds: waited})
		if err != nil && ctx.Err() == nil {
			return spot.Outcome{}, fmt.Errorf("reading the queue %s: %w", queue, err)
		}
		if out == nil {
			break
		}
		for _, m := range out.Messages {
			var r record
			if json.Unmarshal([]byte(aws.ToString(m.Body)), &r) != nil || r.RequestPayload.ID != id {
				continue // somebody else's
			}
			switch out, err := r.outcome(); {
			case err != nil:
				failed = err
			case out.Cluster == cluster:
				return out, nil
			}
		}
	}
	return spot.Outcome{}, cmp.Or(failed, silence(ctx, "queue "+queue))
}

func (r record) outcome() (out spot.Outcome, err error) {
	if r.RequestContext.Condition != "Success" {
		return out, &FailedError{fmt.Sprintf("%s of %s: %s", r.RequestContext.Condition, r.RequestContext.FunctionARN, r.ResponsePayload)}
	}
	if err := json.Unmarshal(r.ResponsePayload, &out); err != nil {
		return out, fmt.Errorf("reading the outcome: %w", err)
	}
	return out, nil
}
