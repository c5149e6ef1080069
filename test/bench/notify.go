package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	fakeevents "github.com/castai/kops-spot/test/fakes/events"
	"github.com/castai/kops-spot/test/testenv"
)

// notify measures whether the receiver of notifications affects a drain. In every trial the handler publishes on the bus;
// the rules post to the receiver, except in the trials without one.
func (b *bench) notify(ctx context.Context) (tables []table, err error) {
	moto, err := testenv.StartMoto(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, moto.Stop()) }()
	const host = "receiver.example.com"
	receiver, err := fakeevents.StartReceiver(host)
	if err != nil {
		return nil, err
	}
	defer receiver.Close()
	bridge, err := fakeevents.Start(ctx, fakeevents.Options{Moto: moto.URL, Region: region, Internet: receiver.Client, RetryLimit: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bridge.Close()) }()
	cfg := awssdk.Config{Region: region, BaseEndpoint: &bridge.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
	client, rule := eventbridge.NewFromConfig(aws.PlainBodies(cfg)), awssdk.String("notifications")
	connection, err := client.CreateConnection(ctx, &eventbridge.CreateConnectionInput{Name: rule, AuthorizationType: types.ConnectionAuthorizationTypeApiKey,
		AuthParameters: &types.CreateConnectionAuthRequestParameters{ApiKeyAuthParameters: &types.CreateConnectionApiKeyAuthRequestParameters{
			ApiKeyName: awssdk.String("X-Kops-Spot"), ApiKeyValue: awssdk.String(clusterName)}}})
	if err != nil {
		return nil, err
	}
	destination, err := client.CreateApiDestination(ctx, &eventbridge.CreateApiDestinationInput{Name: rule, ConnectionArn: connection.ConnectionArn,
		HttpMethod: types.ApiDestinationHttpMethodPost, InvocationEndpoint: awssdk.String("https://" + host)})
	if err != nil {
		return nil, err
	}
	if _, err := client.PutRule(ctx, &eventbridge.PutRuleInput{Name: rule, EventPattern: awssdk.String(`{"source": ["` + spot.NotificationSource + `"]}`)}); err != nil {
		return nil, err
	}
	if _, err := client.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: rule, Targets: []types.Target{{Id: rule, Arn: destination.ApiDestinationArn,
		InputPath: awssdk.String("$.detail"), RoleArn: awssdk.String("arn:aws:iam::123456789012:role/r")}}}); err != nil {
		return nil, err
	}
	with := func(name string, posts bool, answer http.HandlerFunc) drainer {
		d := newKopsSpot(name, false, 0, aws.New(cfg))
		prepare := d.prepare
		d.prepare = func(ctx context.Context, t target) (drainFunc, error) {
			receiver.Answer(answer)
			var err error
			if posts {
				_, err = client.EnableRule(ctx, &eventbridge.EnableRuleInput{Name: rule})
			} else {
				_, err = client.DisableRule(ctx, &eventbridge.DisableRuleInput{Name: rule})
			}
			if err != nil {
				return nil, err
			}
			return prepare(ctx, t)
		}
		return d
	}
	w := b.receivers
	return b.compare(ctx, w.String(), w.scenario(b), w.rounds, []column{
		lastEviction,
		{name: "node empty", unit: milliseconds, value: func(s stats) float64 { return (s.empty + w.stop.Seconds()) * 1000 }},
		returned,
	}, []drainer{
		with("no receiver", false, nil),
		with("a receiver", true, nil),
		with("a slow receiver", true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		with("a receiver that returns 500", true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		with("a receiver that is gone", true, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	})
}
