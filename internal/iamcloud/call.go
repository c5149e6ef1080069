package iamcloud

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
	"github.com/aws/smithy-go"
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
		var of *smithy.OperationError
		action := ""
		if errors.As(err, &of) {
			action = actionOf(of)
		}
		err = translate("calling "+action+" on "+c.on, c.on, err)
		switch {
		case !errors.Is(err, ErrNotFound):
			return err
		case takesAway(action):
			return nil
		case try == settleTries:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("calling %s: %w", action, context.Cause(ctx))
		case <-time.After(settlePause):
		}
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

// callOf is a call of one of the services' clients.
func callOf[C, In, Options, Out any](on string, client func(*Account) C,
	f func(C, context.Context, *In, ...func(*Options)) (Out, error), in *In) Call {
	return Call{on, func(ctx context.Context, a *Account) error { _, err := f(client(a), ctx, in); return err }}
}

func onIAM[In, Out any](on string, f func(*iam.Client, context.Context, *In, ...func(*iam.Options)) (Out, error), in *In) Call {
	return callOf(on, func(a *Account) *iam.Client { return a.iam }, f, in)
}

func onSecrets[In, Out any](on string, f func(*secretsmanager.Client, context.Context, *In, ...func(*secretsmanager.Options)) (Out, error), in *In) Call {
	return callOf(on, func(a *Account) *secretsmanager.Client { return a.secrets }, f, in)
}

func onLambda[In, Out any](on string, f func(*lambda.Client, context.Context, *In, ...func(*lambda.Options)) (Out, error), in *In) Call {
	return callOf(on, func(a *Account) *lambda.Client { return a.lambda }, f, in)
}

func onEvents[In, Out any](on string, f func(*eventbridge.Client, context.Context, *In, ...func(*eventbridge.Options)) (Out, error), in *In) Call {
	return callOf(on, func(a *Account) *eventbridge.Client { return a.events }, f, in)
}

func onS3[In, Out any](on string, f func(*s3.Client, context.Context, *In, ...func(*s3.Options)) (Out, error), in *In) Call {
	return callOf(on, func(a *Account) *s3.Client { return a.buckets }, f, in)
}

// every reads a list to its end, and makes of each item what is wanted of it.
func every[Page, Options, Item, T any](ctx context.Context, pages interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*Options)) (*Page, error)
}, items func(*Page) []Item, is func(Item) T) (all []T, err error) {
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range items(page) {
			all = append(all, is(one))
		}
	}
	return all, nil
}
