package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/castai/kops-spot/internal/spot"
)

const id, secret = "i-0123456789abcdef0", "do-not-tell"

// cloudAt returns a Cloud with the server h, and a configuration that enables retries.
func cloudAt(t *testing.T, h http.HandlerFunc) *Cloud {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return New(aws.Config{
		Region:           "eu-west-1",
		BaseEndpoint:     aws.String(s.URL),
		RetryMaxAttempts: 4,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: secret, SessionToken: secret}, nil
		}),
	})
}

// ec2Error and scaleError respond to every call with an error in the format of the service.
func ec2Error(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>r-1</RequestID></Response>`,
			code, message)
	}
}

func scaleError(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r-1</RequestId></ErrorResponse>`,
			code, message)
	}
}

func TestErrors(t *testing.T) {
	instance := func(c *Cloud) error { _, err := c.Instance(t.Context(), id); return err }
	membership := func(c *Cloud) error { _, err := c.Membership(t.Context(), id); return err }
	tag := func(c *Cloud) error { return c.Tag(t.Context(), id, map[string]string{"a": "b"}) }
	detach := func(c *Cloud) error { return c.Detach(t.Context(), id, "nodes.example.com") }
	hook := func(c *Cloud) error { _, err := c.Hook(t.Context(), "nodes.example.com", "drain"); return err }
	held := spot.Action{Group: "nodes.example.com", Hook: "drain", Token: "t-1", Instance: id}
	heartbeat := func(c *Cloud) error { return c.Heartbeat(t.Context(), held) }
	complete := func(c *Cloud) error { return c.Complete(t.Context(), held) }

	tests := []struct {
		name   string
		answer http.HandlerFunc
		call   func(*Cloud) error
		is     error // nil: worth a retry
		want   string
	}{
		{"no such instance", ec2Error(400, "InvalidInstanceID.NotFound",
			"The instance ID 'i-0123456789abcdef0' does not exist"), instance, spot.ErrNotFound,
			"describing instance i-0123456789abcdef0: not found: InvalidInstanceID.NotFound: The instance ID 'i-0123456789abcdef0' does not exist"},
		{"malformed id", ec2Error(400, "InvalidInstanceID.Malformed", `Invalid id: "x"`), instance, spot.ErrNotFound,
			"Malformed"},
		{"tagging what is not there", ec2Error(400, "InvalidID", "The ID 'x' is not valid"), tag, spot.ErrNotFound,
			"tagging instance " + id},
		{"EC2 denies, and says to whom", ec2Error(403, "UnauthorizedOperation",
			"You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/fn is not authorized to perform: ec2:CreateTags on resource: x. Encoded authorization failure message: QUJD"), tag, spot.ErrPermanent,
			"tagging instance i-0123456789abcdef0: not retryable: UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/fn is not authorized to perform: ec2:CreateTags on resource: x; allow ec2:CreateTags on instance i-0123456789abcdef0 to arn:aws:sts::123456789012:assumed-role/CastLambdaRoleForSpot/fn"},
		{"EC2 denies, and says no more",
			ec2Error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."), instance,
			spot.ErrPermanent,
			"allow ec2:DescribeInstances to the role this runs as"},
		{"Auto Scaling denies", scaleError(403, "AccessDenied", "no"), detach, spot.ErrPermanent,
			"allow autoscaling:DetachInstances on Auto Scaling group nodes.example.com to the role this runs as"},
		{"unknown credentials", ec2Error(401, "AuthFailure",
			"AWS was not able to validate the provided access credentials"), instance, spot.ErrPermanent,
			"describing instance i-0123456789abcdef0: not retryable: AWS rejects the credentials (AuthFailure); renew them and check the clock"},
		{"expired credentials, EC2", ec2Error(400, "RequestExpired", "Request has expired."), tag, spot.ErrPermanent,
			"renew them"},
		{"expired credentials", scaleError(403, "ExpiredToken",
			"The security token included in the request is expired"), membership, spot.ErrPermanent, "renew them"},
		{"unknown access key", scaleError(403, "InvalidClientTokenId",
			"The security token included in the request is invalid"), membership, spot.ErrPermanent, "renew them"},
		{"a signature that does not match", scaleError(403, "SignatureDoesNotMatch",
			"The request signature we calculated does not match.\n\nThe Canonical String should have been\nx-amz-security-token:"+secret), detach, spot.ErrPermanent, "(SignatureDoesNotMatch)"},
		{"a header quoted", scaleError(400, "IncompleteSignature",
			"Authorization header requires a date. Authorization="+secret), detach, spot.ErrPermanent,
			"(IncompleteSignature)"},
		{"no member", scaleError(400, "ValidationError",
			"The instance i-0123456789abcdef0 is not part of Auto Scaling group nodes.example.com."), detach,
			spot.ErrPermanent,
			"detaching instance i-0123456789abcdef0 from Auto Scaling group nodes.example.com: not retryable: ValidationError: The instance i-0123456789abcdef0 is not part of Auto Scaling group nodes.example.com"},
		{"no such group, so no hook", scaleError(400, "ValidationError",
			"AutoScalingGroup name not found - AutoScalingGroup nodes.example.com not found"), hook, spot.ErrNotFound,
			"describing lifecycle hook drain of Auto Scaling group nodes.example.com: not found"},
		{"no such hook", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `<R><DescribeLifecycleHooksResult><LifecycleHooks/></DescribeLifecycleHooksResult></R>`)
		}, hook, spot.ErrNotFound, "describing lifecycle hook drain of Auto Scaling group nodes.example.com: not found"},
		{"a hook that may not be read", scaleError(403, "AccessDenied", "no"), hook, spot.ErrPermanent,
			"allow autoscaling:DescribeLifecycleHooks to the role this runs as"},
		{"an invalid hook request", scaleError(400, "ValidationError", "1 validation error detected"), hook,
			spot.ErrPermanent, "1 validation error detected"},
		{"an action that is over", scaleError(400, "ValidationError",
			"No active Lifecycle Action found with token t-1"), heartbeat, spot.ErrPermanent,
			"recording a heartbeat of lifecycle hook drain of Auto Scaling group nodes.example.com for instance i-0123456789abcdef0: not retryable: ValidationError: No active Lifecycle Action found with token t-1"},
		{"an action that is completed", scaleError(400, "ValidationError",
			"No active Lifecycle Action found with token t-1"), complete, spot.ErrPermanent,
			"completing lifecycle hook drain of"},
		{"Auto Scaling denies a completion", scaleError(403, "AccessDenied", "no"), complete, spot.ErrPermanent,
			"allow autoscaling:CompleteLifecycleAction on Auto Scaling group nodes.example.com to the role this runs as"},
		{"contention at a heartbeat", scaleError(500, "ResourceContention", "You already have a pending update"),
			heartbeat, nil, "ResourceContention"},
		{"not permitted", ec2Error(400, "OperationNotPermitted", "This operation is not permitted."), tag,
			spot.ErrPermanent, "not permitted"},
		{"too many tags", ec2Error(400, "TagLimitExceeded", "The maximum number of tags has been reached."), tag,
			spot.ErrPermanent, "TagLimitExceeded"},
		{"EC2 throttles", ec2Error(503, "RequestLimitExceeded", "Request limit exceeded."), instance, nil,
			"describing instance i-0123456789abcdef0: RequestLimitExceeded: Request limit exceeded"},
		{"Auto Scaling throttles", scaleError(400, "Throttling", "Rate exceeded"), detach, nil,
			"Throttling: Rate exceeded"},
		{"contention", scaleError(500, "ResourceContention", "You already have a pending update"), detach, nil,
			"ResourceContention"},
		{"an activity in progress", scaleError(400, "ScalingActivityInProgress", "wait"), detach, nil,
			"ScalingActivityInProgress"},
		{"an error of theirs", ec2Error(500, "InternalError", "An internal error has occurred"), tag, nil,
			"InternalError"},
		{"a code we do not know", ec2Error(400, "Newfangled", "?"), instance, nil, "Newfangled"},
		{"a proxy's page", func(w http.ResponseWriter,
			_ *http.Request) {
			http.Error(w, "<html>", http.StatusBadGateway)
		}, instance, nil, "describing instance"},
		{"a broken connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, instance, nil,
			"describing instance i-0123456789abcdef0: Post "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			err := tt.call(cloudAt(t, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); tt.answer(w, r) }))
			if err == nil {
				t.Fatal("no error")
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			for _, e := range []error{spot.ErrNotFound, spot.ErrPermanent} {
				if errors.Is(err, e) != (e == tt.is) {
					t.Errorf("errors.Is(err, %q) = %v; err: %v", e, errors.Is(err, e), err)
				}
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error\n%v\ndoes not say\n%s", err, tt.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "QUJD") {
				t.Errorf("it contains too much: %v", err)
			}
		})
	}
}

// TestBlackHole: an attempt without a response is limited in time and worth a retry: it is not the caller's deadline.
func TestBlackHole(t *testing.T) {
	var attempts atomic.Int32
	hole := func(_ http.ResponseWriter, r *http.Request) {
		attempts.Add(1)
		io.Copy(io.Discard, r.Body) // required for the server to notice that the client has disconnected
		<-r.Context().Done()
	}
	c := cloudAt(t, hole)
	c.limit = 50 * time.Millisecond
	_, err := c.Instance(t.Context(), id)
	if err == nil || err.Error() != "describing instance "+id+": no response within 50ms" {
		t.Errorf("error %v", err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, spot.ErrPermanent) {
		t.Errorf("it looks like the caller's deadline: %v", err)
	}
	if n := attempts.Load(); n > 1 { // none if the limit ends before the request arrives
		t.Errorf("%d attempts", n)
	}

	c.limit = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Detach(ctx, id, "g"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's deadline: error %v", err)
	}
}

// TestOperations: the calls of a Cloud are exactly those in Operations, once each.
func TestOperations(t *testing.T) {
	answers := map[string]string{
		"DescribeInstances": `<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>` + id +
			`</instanceId></item></instancesSet></item></reservationSet></DescribeInstancesResponse>`,
		"DescribeAutoScalingInstances": `<R><DescribeAutoScalingInstancesResult><AutoScalingInstances><member><InstanceId>` + id +
			`</InstanceId><AutoScalingGroupName>g</AutoScalingGroupName></member></AutoScalingInstances></DescribeAutoScalingInstancesResult></R>`,
		"DescribeAutoScalingGroups": `<R><DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>g` +
			`</AutoScalingGroupName></member></AutoScalingGroups></DescribeAutoScalingGroupsResult></R>`,
		"DescribeLifecycleHooks": `<R><DescribeLifecycleHooksResult><LifecycleHooks><member><LifecycleHookName>h` +
			`</LifecycleHookName></member></LifecycleHooks></DescribeLifecycleHooksResult></R>`,
		"DetachInstances":                `<R><DetachInstancesResult/></R>`,
		"CreateTags":                     `<R><return>true</return></R>`,
		"RecordLifecycleActionHeartbeat": `<R><RecordLifecycleActionHeartbeatResult/></R>`,
		"CompleteLifecycleAction":        `<R><CompleteLifecycleActionResult/></R>`,
		"GetCallerIdentity":              `<R><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/u</Arn></GetCallerIdentityResult></R>`,
		"GetSecretValue":                 `{"SecretString":"s"}`,
		"GetParameter":                   `{"Parameter":{"Value":"p"}}`,
		"PutEvents":                      `{"FailedEntryCount":0,"Entries":[{"EventId":"e"}]}`,
	}
	var mu sync.Mutex
	var called map[string]int
	c := cloudAt(t, func(w http.ResponseWriter, r *http.Request) {
		_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "/eu-west-1/")
		service, _, _ := strings.Cut(scope, "/")
		action := r.FormValue("Action")
		if target := r.Header.Get("X-Amz-Target"); target != "" { // the JSON protocol
			_, action, _ = strings.Cut(target, ".")
		}
		if action == "DetachInstances" && r.FormValue("ShouldDecrementDesiredCapacity") != "false" {
			t.Errorf("the group would not launch a replacement: %v", r.Form)
		}
		mu.Lock()
		called[service+":"+action]++
		mu.Unlock()
		io.WriteString(w, answers[action])
	})
	methods := map[string]func() error{
		"Instance":     func() error { _, err := c.Instance(t.Context(), id); return err },
		"Membership":   func() error { _, err := c.Membership(t.Context(), id); return err },
		"Group":        func() error { _, err := c.Group(t.Context(), "g"); return err },
		"DetachedFrom": func() error { _, err := c.DetachedFrom(t.Context(), "g"); return err },
		"Tag":          func() error { return c.Tag(t.Context(), id, map[string]string{"a": "b"}) },
		"Detach":       func() error { return c.Detach(t.Context(), id, "g") },
		"Hook":         func() error { _, err := c.Hook(t.Context(), "g", "h"); return err },
		"Heartbeat":    func() error { return c.Heartbeat(t.Context(), spot.Action{Group: "g", Hook: "h", Token: "t"}) },
		"Complete":     func() error { return c.Complete(t.Context(), spot.Action{Group: "g", Hook: "h", Token: "t"}) },
		"Publish":      func() error { return c.Publish(t.Context(), spot.Notification{}) },
		"Readable":     func() error { return c.Readable(t.Context(), "example.com") },
		"InstancesOf":  func() error { _, err := c.InstancesOf(t.Context(), []string{id}); return err },
		"Secret":       func() error { _, err := c.Secret(t.Context(), "s", "k"); return err },
		"Parameter":    func() error { _, err := c.Parameter(t.Context(), "p", "k"); return err },
		"CallerARN":    func() error { _, err := c.CallerARN(t.Context()); return err },
	}
	for m := range reflect.TypeFor[*Cloud]().Methods() {
		call, ok := methods[m.Name]
		if !ok {
			t.Errorf("%s: not called here", m.Name)
			continue
		}
		called = map[string]int{}
		if err := call(); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		want := map[string]int{}
		for _, op := range Operations()[m.Name] {
			want[op] = 1
		}
		if !reflect.DeepEqual(called, want) {
			t.Errorf("%s calls %v, the table says %v", m.Name, called, want)
		}
	}
	if n := reflect.TypeFor[*Cloud]().NumMethod(); len(Operations()) != n {
		t.Errorf("the table has %d methods, Cloud has %d", len(Operations()), n)
	}
}
