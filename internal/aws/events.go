package aws

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	events "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/internal/spot"
)

// Publish puts a notification on the account's default event bus.
func (c *Cloud) Publish(ctx context.Context, n spot.Notification) error {
	detail, err := n.Detail()
	if err != nil {
		return err
	}
	entry := types.PutEventsRequestEntry{Source: aws.String(spot.NotificationSource), DetailType: aws.String(string(n.Name)),
		Detail: aws.String(string(detail))}
	const doing = "putting an event on the default bus"
	out, err := attempt(ctx, c, "events:PutEvents", doing, "event-bus/default", c.events.PutEvents,
		&events.PutEventsInput{Entries: []types.PutEventsRequestEntry{entry}})
	if err != nil {
		return err
	}
	for _, e := range out.Entries {
		if e.ErrorCode != nil {
			return fmt.Errorf("%s: %w", doing, errors.New(*e.ErrorCode+": "+aws.ToString(e.ErrorMessage)))
		}
	}
	return nil
}
