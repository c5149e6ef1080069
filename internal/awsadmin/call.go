package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Call is one call that changes something, as data.
type Call struct {
	on string // the resource, as an ARN or a name
	do func(context.Context, *Account) error
}

// deletes matches actions that succeed if their resource does not exist.
var deletes = regexp.MustCompile(`:(Delete|Detach|Remove|Untag)`)

// Do carries out a call, and retries it by the table of delays.
func (a *Account) Do(ctx context.Context, c Call) error {
	for began := time.Now(); ; {
		err := c.do(ctx, a)
		action, _ := operationOf(err)
		code, _ := apiError(err)
		d := delayOf(err)
		if action != notSDK {
			err = translate(c.on, err)
		}
		switch {
		case err == nil,
			errors.Is(err, ErrNotFound) && deletes.MatchString(action),
			code == "BucketAlreadyOwnedByYou": // created by a request whose response was lost, or not yet listed
			return nil
		case d == nil:
			return err
		case time.Since(began) >= d.limit && d.advice != "":
			_, name, _ := strings.Cut(c.on, " ")
			return fmt.Errorf("%w: %s", err, strings.ReplaceAll(d.advice, "NAME", name))
		case time.Since(began) >= d.limit:
			return err
		}
		if err := Pause(ctx, d.pause); err != nil {
			return fmt.Errorf("calling %s: %w", action, err)
		}
	}
}

// Pause sleeps, and returns early with the cause if the context ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// client is a service that has Calls.
type client interface {
	iam.Client | secretsmanager.Client | lambda.Client | eventbridge.Client | s3.Client | cloudwatchlogs.Client |
		autoscaling.Client | sqs.Client
}

func call[Client client, In, Options, Out any](on string,
	f func(*Client, context.Context, *In, ...func(*Options)) (Out, error), in *In) Call {
	return Call{on, func(ctx context.Context, a *Account) error {
		for _, c := range []any{a.iam, a.secrets, a.lambda, a.events, a.buckets, a.logs, a.scaling, a.queues} {
			if client, is := c.(*Client); is {
				_, err := f(client, ctx, in)
				return err
			}
		}
		panic(fmt.Sprintf("Account has no %T", *new(*Client)))
	}}
}

// pages is one of the SDK's paginators.
type pages[Page, Options any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Options)) (*Page, error)
}

// every reads all pages, and converts their items.
func every[Page, Options, Item, T any](ctx context.Context, on string, list pages[Page, Options],
	items func(*Page) []Item, convert func(Item) T) (all []T, err error) {
	for list.HasMorePages() {
		page, err := list.NextPage(ctx)
		if err != nil {
			return nil, translate(on, err)
		}
		for _, one := range items(page) {
			all = append(all, convert(one))
		}
	}
	return all, nil
}

func itself[T any](v T) T { return v }
