package awsadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// denied is a stub of AWS that denies every call, in the form of each protocol.
type denied struct{}

func (denied) Do(r *http.Request) (*http.Response, error) {
	kind, text := "text/xml", `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`
	if strings.Contains(r.Host, "s3") || strings.Contains(r.URL.Host, "s3") {
		text = `<Error><Code>AccessDenied</Code><Message>no</Message></Error>`
	}
	if strings.Contains(r.URL.Host, "ec2") {
		text = `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`
	}
	if r.Header.Get("X-Amz-Target") != "" || strings.Contains(r.URL.Host, "lambda") {
		kind, text = "application/x-amz-json-1.1", `{"__type": "AccessDeniedException", "Message": "no"}`
	}
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {kind},
		"X-Amzn-Errortype": {"AccessDeniedException"}},
		Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// TestDenied: the error names the missing action as IAM policies do, which may differ from the SDK.
func TestDenied(t *testing.T) {
	a := New(aws.Config{Region: "eu-west-1", HTTPClient: denied{}, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
	do := func(c Call) func(context.Context) error {
		return func(ctx context.Context) error { return a.Do(ctx, c) }
	}
	for _, c := range []struct {
		want string
		call func(context.Context) error
	}{
		{"iam:ListUsers", func(ctx context.Context) error { _, err := a.UserNames(ctx); return err }},
		{"iam:CreateRole on role r", do(CreateRole("r", "d", "{}", "", nil))},
		{"ec2:DescribeSubnets", func(ctx context.Context) error { _, err := a.Subnets(ctx, "vpc"); return err }},
		{"secretsmanager:DescribeSecret on secret s", func(ctx context.Context) error {
			_, err := a.Secret(ctx, "s")
			return err
		}},
		{"lambda:ListFunctions", func(ctx context.Context) error { _, err := a.Functions(ctx); return err }},
		{"lambda:InvokeFunction on function f", func(ctx context.Context) error {
			_, _, err := a.Invoke(ctx, "f", nil)
			return err
		}},
		{"events:DescribeRule on rule r", func(ctx context.Context) error { _, err := a.Rule(ctx, "r"); return err }},
		{"sqs:GetQueueUrl on queue q", func(ctx context.Context) error { _, _, err := a.Queue(ctx, "q"); return err }},
		{"cloudformation:DescribeStacks on stack s", func(ctx context.Context) error {
			_, err := a.Stack(ctx, "s")
			return err
		}},
		{"s3:ListBucket on bucket b", func(ctx context.Context) error { _, err := a.Objects(ctx, "b", "1", ""); return err }},
		{"s3:ListBucket on bucket b", func(ctx context.Context) error { _, err := a.Bucket(ctx, "b", "1", "", ""); return err }},
		{"s3:PutBucketPublicAccessBlock on bucket b", do(BlockPublicAccess("b", "1"))},
		{"autoscaling:DescribeAutoScalingGroups", func(ctx context.Context) error { _, _, err := a.Group(ctx, "g"); return err }},
		{"ec2:DescribeInstanceTypes", func(ctx context.Context) error { _, err := a.InstanceTypes(ctx, []string{"m5.*"}); return err }},
		{"ec2:DescribeSpotPriceHistory", func(ctx context.Context) error {
			_, err := a.SpotPrices(ctx, []string{"m5.large"}, []string{"eu-west-1a"})
			return err
		}},
		{"pricing:GetProducts", func(ctx context.Context) error { _, err := a.OnDemandPrices(ctx, nil); return err }},
		{"sts:GetCallerIdentity", func(ctx context.Context) error { _, err := a.Caller(ctx); return err }},
	} {
		err := c.call(t.Context())
		if !errors.Is(err, ErrDenied) || !strings.HasSuffix(err.Error(), ": allow "+c.want) {
			t.Errorf("want the advice to allow %s: %v", c.want, err)
		}
	}
}

// answers is a stub of AWS that responds with one error after another, and then with success.
type answers struct {
	errors []response
	asked  []string // operations
}

type response struct{ code, message string }

func (s *answers) Do(r *http.Request) (*http.Response, error) {
	operation := r.Method + " " + r.URL.RawQuery
	if body := r.Body; body != nil {
		text, _ := io.ReadAll(body)
		if form, err := url.ParseQuery(string(text)); err == nil && form.Has("Action") {
			operation = form.Get("Action")
		}
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, operation, _ = strings.Cut(target, ".")
	}
	s.asked = append(s.asked, operation)
	status, kind, text := http.StatusOK, "text/xml", "<R><"+operation+"Result><Status>CREATE_COMPLETE</Status><AccessKey/></"+operation+"Result></R>"
	json := r.Header.Get("X-Amz-Target") != ""
	if json {
		kind, text = "application/x-amz-json-1.1", "{}"
	}
	if len(s.errors) > 0 {
		e := s.errors[0]
		if s.errors = s.errors[1:]; e.code != "" {
			status, text = http.StatusBadRequest, `<ErrorResponse><Error><Code>`+e.code+`</Code><Message>`+e.message+`</Message></Error></ErrorResponse>`
			if strings.Contains(r.URL.Host, "s3") {
				text = `<Error><Code>` + e.code + `</Code><Message>` + e.message + `</Message></Error>`
			}
			if json {
				text = `{"__type": "` + e.code + `", "message": "` + e.message + `"}`
			}
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}},
		Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (s *answers) account() *Account {
	return New(aws.Config{Region: "eu-west-1", HTTPClient: s, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
}

// TestDelays: each kind of error that passes by itself is waited for, and its limit is bounded.
func TestDelays(t *testing.T) {
	deleting := response{"InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion."}
	noUser := response{"NoSuchEntity", "The user with name u cannot be found."}
	noBucket := response{"NoSuchBucket", "The specified bucket does not exist"}
	changeSet := func(ctx context.Context, a *Account) error {
		_, err := a.CreateChangeSet(ctx, StackSpec{Name: "s"}, nil)
		return err
	}
	do := func(c Call) func(context.Context, *Account) error {
		return func(ctx context.Context, a *Account) error { return a.Do(ctx, c) }
	}
	times := func(n int, e response) []response { return slices.Repeat([]response{e}, n) }
	const again = "it did not exist when the plan was made: run this again"
	for name, c := range map[string]struct {
		call   func(context.Context, *Account) error
		errors []response
		tries  int    // of the call
		limit  int    // seconds
		finish string // of the error
	}{
		"new user":             {do(AttachUserPolicy("u", "p")), times(3, noUser), 4, 6, ""},
		"no user":              {do(AttachUserPolicy("u", "p")), times(99, noUser), 11, 20, "cannot be found"},
		"deleted":              {do(DetachUserPolicy("u", "p")), times(99, noUser), 1, 0, ""},
		"new principal":        {do(UpdateTrust("r", "{}")), times(2, response{"MalformedPolicyDocument", "Invalid principal in policy: AWS"}), 3, 4, ""},
		"wrong policy":         {do(UpdateTrust("r", "{}")), times(1, response{"MalformedPolicyDocument", "Syntax errors in policy."}), 1, 0, "Syntax errors in policy"},
		"user being changed":   {do(DeleteUser("u")), times(2, response{"EntityTemporarilyUnmodifiable", "try again"}), 3, 4, ""},
		"secret being deleted": {do(CreateSecret("s", "d", nil)), times(4, deleting), 6, 12, ""},
		"deletion scheduled": {do(CreateSecret("s", "d", nil)), times(99, deleting), 11, 30,
			"restore it with aws secretsmanager restore-secret --secret-id s; otherwise run this again in a minute"},
		"secret not yet shown": {do(CreateSecret("s", "d", nil)), []response{{}, {"ResourceNotFoundException", "none"}}, 3, 2, ""},
		"value of a new secret": {func(ctx context.Context, a *Account) error { return a.Store(ctx, "s", "v", "l") },
			times(2, response{"ResourceNotFoundException", "none"}), 3, 4, ""},
		"key of a new user": {func(ctx context.Context, a *Account) error { _, err := a.CreateKey(ctx, "u"); return err }, times(2, noUser), 3, 4, ""},
		"listed, but deleted": {func(ctx context.Context, a *Account) error {
			tags, err := a.RoleTags(ctx, "r")
			policy, bad := a.Policy(ctx, "p", "arn")
			if tags != nil || policy != nil {
				t.Errorf("%v, %v", tags, policy)
			}
			return errors.Join(err, bad)
		}, times(2, noUser), 2, 0, ""},
		"new bucket":           {do(TagBucket("b", "1", map[string]string{"k": "v"})), times(3, noBucket), 4, 6, ""},
		"bucket deleted":       {do(DeleteBucket("b", "1")), times(1, noBucket), 1, 0, ""},
		"bucket exists":        {do(CreateBucket("b", "eu-west-1")), times(1, response{"BucketAlreadyOwnedByYou", "yours"}), 1, 0, ""},
		"bucket being deleted": {do(CreateBucket("b", "eu-west-1")), times(2, response{"OperationAborted", "A conflicting conditional operation is currently in progress"}), 3, 10, ""},
		"bucket blocked":       {do(CreateBucket("b", "eu-west-1")), times(99, response{"OperationAborted", "conflict"}), 13, 60, "the bucket b: run this again in a few minutes"},
		"template's bucket":    {changeSet, times(2, response{"ValidationError", "S3 error: The specified bucket does not exist"}), 5, 6, ""},
		"role not yet listed":  {do(CreateRole("r", "d", "{}", "", nil)), times(1, response{"EntityAlreadyExists", "Role with name r already exists."}), 1, 0, again},
		"another error":        {do(CreateUser("u", "", nil)), times(1, response{"LimitExceeded", "too many"}), 1, 0, "LimitExceeded: too many"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &answers{errors: c.errors}
				began := time.Now()
				err := c.call(t.Context(), s.account())
				if (err == nil) != (c.finish == "") || err != nil && !strings.HasSuffix(err.Error(), c.finish) {
					t.Errorf("%v; want %q", err, c.finish)
				}
				if took := time.Since(began); len(s.asked) != c.tries || took != time.Duration(c.limit)*time.Second {
					t.Errorf("%d tries in %s: %q; want %d in %d s", len(s.asked), took, s.asked, c.tries, c.limit)
				}
			})
		})
	}
}

// TestRecentDeletion: a secret that is being deleted does not count; one that is scheduled for deletion blocks its name.
func TestRecentDeletion(t *testing.T) {
	for age, blocks := range map[time.Duration]bool{time.Second: false, -time.Second: false, time.Hour: true, -30 * 24 * time.Hour: true} {
		at := float64(time.Now().Add(-age).Unix())
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			fmt.Fprintf(w, `{"Name": "s", "DeletedDate": %f}`, at)
		}))
		a := New(aws.Config{Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
		secret, err := a.Secret(t.Context(), "s")
		if err != nil || (secret != nil) != blocks || blocks && !secret.Deleted {
			t.Errorf("deleted %s ago: %v, %v", age, secret, err)
		}
		server.Close()
	}
}

// TestOverruled: where a permission of one's own does not help, the error says whom to ask.
func TestOverruled(t *testing.T) {
	const user = "User: arn:aws:iam::123456789012:user/you is not authorized to perform: iam:CreateUser on resource: u "
	for message, want := range map[string]string{
		user + "because no identity-based policy allows the iam:CreateUser action":                          "allow iam:CreateUser on user u",
		user + "with an explicit deny in a service control policy":                                          "ask whoever manages the service control policy to allow it",
		user + "with an explicit deny in a service control policy: arn:aws:organizations::1:policy/o-1/p-1": "ask whoever manages the service control policy to allow it",
		user + "with an explicit deny in a permissions boundary":                                            "ask whoever manages the permissions boundary to allow it",
		user + "with an explicit deny in an identity-based policy":                                          "ask whoever manages the identity-based policy to allow it",
		user + "because no permissions boundary allows the iam:CreateUser action":                           "ask whoever manages the permissions boundary to allow it",
		user + "because no service control policy allows the iam:CreateUser action":                         "ask whoever manages the service control policy to allow it",
		user + "with an explicit deny":                                                                      "ask whoever manages the policies of your organization to allow it",
	} {
		s := &answers{errors: []response{{"AccessDenied", message}}}
		err := s.account().Do(t.Context(), CreateUser("u", "", nil))
		if !errors.Is(err, ErrDenied) || errors.Is(err, ErrOverruled) != strings.HasPrefix(want, "ask") || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
