package bridge

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// clean takes out of a region what a test has left there.
func clean(ctx context.Context, region string) error {
	moto := newAccount(Options{Moto: shared.moto})
	errs := []error{cleanRules(ctx, moto.events(region)), cleanQueues(ctx, sqs.NewFromConfig(moto.in(region)))}

	_, err := moto.lambda(region).DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String("fn")})
	if none := (*lambdatypes.ResourceNotFoundException)(nil); !errors.As(err, &none) {
		errs = append(errs, err)
	}
	_, err = moto.logs(region).DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: aws.String("/aws/lambda/fn")})
	if none := (*logtypes.ResourceNotFoundException)(nil); !errors.As(err, &none) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func cleanRules(ctx context.Context, client *eventbridge.Client) error {
	buses, err := client.ListEventBuses(ctx, &eventbridge.ListEventBusesInput{})
	if err != nil {
		return err
	}
	var errs []error
	for _, bus := range buses.EventBuses {
		errs = append(errs, cleanBus(ctx, client, bus.Name))
		if *bus.Name != defaultBus {
			_, err := client.DeleteEventBus(ctx, &eventbridge.DeleteEventBusInput{Name: bus.Name})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func cleanBus(ctx context.Context, client *eventbridge.Client, bus *string) error {
	for {
		rules, err := client.ListRules(ctx, &eventbridge.ListRulesInput{EventBusName: bus})
		if err != nil || len(rules.Rules) == 0 {
			return err
		}
		for _, r := range rules.Rules {
			_, err := client.RemoveTargets(ctx, &eventbridge.RemoveTargetsInput{EventBusName: bus, Rule: r.Name, Ids: []string{"target-1", "target-2"}})
			if err != nil {
				return err
			}
			if _, err = client.DeleteRule(ctx, &eventbridge.DeleteRuleInput{EventBusName: bus, Name: r.Name}); err != nil {
				return err
			}
		}
	}
}

func cleanQueues(ctx context.Context, client *sqs.Client) error {
	queues, err := client.ListQueues(ctx, &sqs.ListQueuesInput{})
	if err != nil {
		return err
	}
	var errs []error
	for _, q := range queues.QueueUrls {
		_, err := client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &q})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
