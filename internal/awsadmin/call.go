package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// Call is one call that changes something, as data.
type Call struct {
	on string // the resource, as an ARN or a name
	do func(context.Context, *Account) error
}

// IAM's things are known everywhere a moment after they are made: one that a call refers to may not be known there yet.
const (
	settleTries = 6
	settlePause = 2 * time.Second
)

// Do carries out a call. To take away what is not there is a success; something that was just made and is not known yet is
// waited for.
func (a *Account) Do(ctx context.Context, c Call) error {
	for try := 1; ; try++ {
		err := c.do(ctx, a)
		if err == nil {
			return nil
		}
		action, _ := operationOf(err)
		err = translate("calling "+action+" on "+c.on, c.on, err)
		switch {
		case !errors.Is(err, ErrNotFound):
			return err
		case takesAway(action):
			return nil
		case try == settleTries:
			return err
		}
		if err := pause(ctx, settlePause); err != nil {
			return fmt.Errorf("calling %s: %w", action, err)
		}
	}
}

// pause waits, or says why the context has ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func takesAway(action string) bool {
	_, name, _ := strings.Cut(action, ":")
	for _, verb := range []string{"Delete", "Detach", "Remove", "Untag"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// client is of a service that has calls: the account has one of each.
type client interface {
	iam.Client | secretsmanager.Client | lambda.Client | eventbridge.Client | s3.Client
}

// call is a call of one of the account's clients.
func call[Client client, In, Options, Out any](on string,
	f func(*Client, context.Context, *In, ...func(*Options)) (Out, error), in *In) Call {
	return Call{on, func(ctx context.Context, a *Account) error {
		_, err := f(clientOf[Client](a), ctx, in)
		return err
	}}
}

// clientOf is the account's client of a service.
func clientOf[Client client](a *Account) *Client {
	for _, c := range []any{a.iam, a.secrets, a.lambda, a.events, a.buckets} {
		if client, is := c.(*Client); is {
			return client
		}
	}
	panic(fmt.Sprintf("there is no %T in an account", *new(*Client)))
}

// pages is one of the SDK's paginators.
type pages[Page, Options any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Options)) (*Page, error)
}

// every reads a list to its end, and makes of each item what is wanted of it.
func every[Page, Options, Item, T any](ctx context.Context, list pages[Page, Options], items func(*Page) []Item,
	is func(Item) T) (all []T, err error) {
	for list.HasMorePages() {
		page, err := list.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range items(page) {
			all = append(all, is(one))
		}
	}
	return all, nil
}
