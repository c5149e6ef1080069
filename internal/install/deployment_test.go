package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

const stackID = "arn:aws:cloudformation:eu-west-1:123456789012:stack/cast-kops-prod-example-com-7405b0253a21/1"

// cloudFormation is a stub of a stack with one status after another, and of the bucket with the code.
type cloudFormation struct {
	statuses  []string // of DescribeStacks, one after another; "" for no stack
	looks     int
	executed  bool
	after     []string        // statuses after ExecuteChangeSet or DeleteStack
	events    string          // after that
	proposals string          // change sets
	owner     string          // the bucket's tag, unless ours
	late      int             // number of DescribeStacks before the events
	keys      []string        // in the bucket
	templates []string        // of CreateChangeSet: their URLs, or "inline"
	tags      []string        // of CreateChangeSet
	notify    []string        // of CreateChangeSet: the values of NotifyUrl, or "previous"
	adds      string          // the logical ID that the change set adds; SpotHandlerFunction if empty
	refuses   string          // why CreateChangeSet fails
	fails     string          // why the change set fails
	invalid   string          // the members of DescribeEvents; empty for an error
	denied    string          // the action that is denied
	logs      string          // the log groups, in JSON
	function  bool            // it exists
	stackOf   string          // the stack that has created what exists
	second    *cloudFormation // after and events of the second execution
	calls     []string
	unowned   []string // requests to S3 without the account that must own the bucket
}

func (s *cloudFormation) Do(r *http.Request) (*http.Response, error) {
	body := []byte{}
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	form, _ := url.ParseQuery(string(body))
	action := form.Get("Action")
	_, target, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if action != "" {
		s.calls = append(s.calls, action)
	} else if target == "DeleteLogGroup" {
		s.calls, s.logs = append(s.calls, target), ""
	}
	if other := s.other(r, target); other != nil {
		return other, nil
	}
	if action == "" && r.Header.Get("X-Amz-Expected-Bucket-Owner") != "123456789012" {
		s.unowned = append(s.unowned, r.Method+" "+r.URL.String())
	}
	status, answer := http.StatusOK, ""
	switch {
	case action == "DescribeStacks":
		now := ""
		if len(s.statuses) > 0 {
			now = s.statuses[min(s.looks, len(s.statuses)-1)]
		}
		s.looks++
		if now == "" {
			status = http.StatusBadRequest
			answer = `<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack with id x does not exist</Message></Error></ErrorResponse>`
			break
		}
		answer = `<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>cast-kops-prod-example-com-7405b0253a21</StackName><StackId>` + stackID +
			`</StackId><StackStatus>` + now + `</StackStatus><StackStatusReason>the reason</StackStatusReason><Parameters><member><ParameterKey>Mode</ParameterKey><ParameterValue>observe</ParameterValue></member><member><ParameterKey>NotifyUrl</ParameterKey><ParameterValue>****</ParameterValue></member></Parameters>` +
			`<Tags><member><Key>aws:x</Key><Value>1</Value></member><member><Key>team</Key><Value>a</Value></member></Tags><CreationTime>2026-01-01T00:00:00Z</CreationTime></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`
	case action == s.denied && action != "":
		status = http.StatusForbidden
		answer = `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`
	case action == "DescribeEvents" && s.invalid == "":
		status = http.StatusBadRequest
		answer = `<ErrorResponse><Error><Code>InvalidAction</Code><Message>no such action</Message></Error></ErrorResponse>`
	case action == "DescribeEvents":
		answer = `<DescribeEventsResponse><DescribeEventsResult><OperationEvents>` + s.invalid + `</OperationEvents></DescribeEventsResult></DescribeEventsResponse>`
	case action == "DescribeStackResources" && s.stackOf == "":
		status = http.StatusBadRequest
		answer = `<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack for x does not exist</Message></Error></ErrorResponse>`
	case action == "DescribeStackResources":
		answer = `<DescribeStackResourcesResponse><DescribeStackResourcesResult><StackResources><member><StackName>` + s.stackOf +
			`</StackName></member></StackResources></DescribeStackResourcesResult></DescribeStackResourcesResponse>`
	case action == "CreateChangeSet" && s.refuses != "":
		status = http.StatusBadRequest
		answer = `<ErrorResponse><Error><Code>ValidationError</Code><Message>` + s.refuses + `</Message></Error></ErrorResponse>`
	case action == "DescribeChangeSet" && s.fails != "":
		answer = `<DescribeChangeSetResponse><DescribeChangeSetResult><Status>FAILED</Status><StatusReason>` + s.fails +
			`</StatusReason></DescribeChangeSetResult></DescribeChangeSetResponse>`
	case action == "CreateChangeSet":
		for i := 1; form.Has(fmt.Sprintf("Tags.member.%d.Key", i)); i++ {
			s.tags = append(s.tags, form.Get(fmt.Sprintf("Tags.member.%d.Key", i))+"="+form.Get(fmt.Sprintf("Tags.member.%d.Value", i)))
		}
		for i := 1; form.Has(fmt.Sprintf("Parameters.member.%d.ParameterKey", i)); i++ {
			if at := fmt.Sprintf("Parameters.member.%d.", i); form.Get(at+"ParameterKey") == "NotifyUrl" && form.Get(at+"UsePreviousValue") == "true" {
				s.notify = append(s.notify, "previous")
			} else if form.Get(at+"ParameterKey") == "NotifyUrl" {
				s.notify = append(s.notify, form.Get(at+"ParameterValue"))
			}
		}
		if s.templates = append(s.templates, cmp.Or(form.Get("TemplateURL"), "inline")); form.Get("TemplateURL") != "" && form.Has("TemplateBody") {
			s.templates = append(s.templates, "both")
		}
		answer = `<CreateChangeSetResponse><CreateChangeSetResult><Id>set</Id><StackId>` + stackID + `</StackId></CreateChangeSetResult></CreateChangeSetResponse>`
	case action == "DescribeChangeSet":
		answer = `<DescribeChangeSetResponse><DescribeChangeSetResult><Status>CREATE_COMPLETE</Status><Changes><member><Type>Resource</Type><ResourceChange><Action>Add</Action>` +
			`<LogicalResourceId>` + cmp.Or(s.adds, "SpotHandlerFunction") + `</LogicalResourceId><ResourceType>AWS::Lambda::Function</ResourceType></ResourceChange></member></Changes></DescribeChangeSetResult></DescribeChangeSetResponse>`
	case action == "ExecuteChangeSet", action == "DeleteStack":
		if action == "ExecuteChangeSet" && s.executed && s.second != nil {
			s.after, s.events, s.second = s.second.after, s.second.events+s.events, nil
		}
		s.executed = s.executed || action == "ExecuteChangeSet"
		s.statuses, s.looks = s.after, 0
		if action == "DeleteStack" {
			s.statuses = []string{""}
		}
		answer = "<" + action + "Response><" + action + "Result/></" + action + "Response>"
	case action == "DescribeStackEvents":
		events := event("before", "CREATE_COMPLETE", "")
		if s.executed && s.looks > s.late {
			events = s.events + events
		}
		answer = `<DescribeStackEventsResponse><DescribeStackEventsResult><StackEvents>` + events + `</StackEvents></DescribeStackEventsResult></DescribeStackEventsResponse>`
	case action == "ListChangeSets":
		answer = `<ListChangeSetsResponse><ListChangeSetsResult><Summaries>` + s.proposals + `</Summaries></ListChangeSetsResult></ListChangeSetsResponse>`
	case action != "":
		answer = "<" + action + "Response><" + action + "Result/></" + action + "Response>"
	case r.Method == http.MethodPut && s.denied == "PutObject":
		status, answer = http.StatusForbidden, "<Error><Code>AccessDenied</Code></Error>"
	case r.Method == http.MethodGet && r.URL.Query().Has("publicAccessBlock"):
		answer = `<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>`
	case r.Method == http.MethodGet && r.URL.Query().Has("tagging"):
		answer = `<Tagging><TagSet><Tag><Key>` + iam.TagManagedBy + `</Key><Value>` + cmp.Or(s.owner, iam.ManagedBy) + `</Value></Tag></TagSet></Tagging>`
	case r.Method == http.MethodGet && r.URL.Query().Has("list-type"):
		for _, key := range s.keys {
			answer += `<Contents><Key>` + key + `</Key></Contents>`
		}
		answer = `<ListBucketResult>` + answer + `</ListBucketResult>`
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"text/xml"}}, Body: io.NopCloser(bytes.NewBufferString(answer)), Request: r}, nil
}

// other answers the services that have no resources of the stack yet.
func (s *cloudFormation) other(r *http.Request, target string) *http.Response {
	status, answer := http.StatusOK, "{}"
	switch function := strings.HasPrefix(r.URL.Path, "/2015-03-31/functions/"); {
	case function && s.function:
		answer = `{"Configuration": {"FunctionName": "f"}}`
	case function, target == "DescribeRule":
		status, answer = http.StatusNotFound, `{"__type": "ResourceNotFoundException", "message": "not found"}`
	case target == "DescribeLogGroups" && s.logs != "":
		answer = `{"logGroups": [` + s.logs + `]}`
	case target == "DescribeLogStreams":
		answer = `{"logStreams": [{"lastEventTimestamp": 1767225600000}]}`
	case target == "":
		return nil
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"},
		"X-Amzn-Errortype": {"ResourceNotFoundException"}},
		Body: io.NopCloser(strings.NewReader(answer)), Request: r}
}

func event(id, status, reason string) string {
	return fmt.Sprintf(`<member><EventId>%s-%s</EventId><LogicalResourceId>%s</LogicalResourceId><ResourceType>AWS::X::Y</ResourceType><ResourceStatus>%s</ResourceStatus>`+
		`<ResourceStatusReason>%s</ResourceStatusReason><Timestamp>2999-01-01T00:00:00Z</Timestamp></member>`, id, status, id, status, reason)
}

// ended is the event that ends an operation on the stack.
func ended(status string) string { return event("cast-kops-prod-example-com-7405b0253a21", status, "") }

func newRun(t *testing.T, s *cloudFormation) (*Deployment, *[]string) {
	t.Helper()
	template, err := ParseTemplate(kopsspot.Template)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	r := &Deployment{Template: template, Say: func(e awsadmin.StackEvent) { said = append(said, e.LogicalID+" "+e.Status) },
		AWS: awsadmin.New(aws.Config{Region: "eu-west-1", HTTPClient: s, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
			Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")}),
		Spec: Spec{Values: iam.Values{Partition: "aws", Region: "eu-west-1", Account: "123456789012", Cluster: "prod.example.com"},
			Code: []byte("code"), Discovered: map[string]string{"Server": "https://api.prod.example.com"}}}
	uploaded, err := r.packagedTemplate()
	if err != nil {
		t.Fatal(err)
	}
	s.keys = []string{r.Spec.key(), uploaded.key}
	return r, &said
}

// TestRollbackError has the causes without the operations that were cancelled, the result, and what to do.
func TestRollbackError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &cloudFormation{after: []string{"CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"},
			events: event("Rule", "CREATE_FAILED", "Resource creation cancelled") + event("SpotHandlerFunction", "CREATE_FAILED", "the role cannot be assumed") +
				event("LogGroup", "CREATE_COMPLETE", "")}
		s.events = ended("ROLLBACK_COMPLETE") + s.events
		r, said := newRun(t, s)
		p, err := r.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = r.Apply(t.Context(), p)
		var failed *FailedError
		if !errors.As(err, &failed) {
			t.Fatalf("%v", err)
		}
		want := "create CloudFormation stack cast-kops-prod-example-com-7405b0253a21: creating stack " +
			"cast-kops-prod-example-com-7405b0253a21 failed and was rolled back, because\n" +
			"  SpotHandlerFunction (AWS::X::Y): the role cannot be assumed\nfix that and run this again"
		if err.Error() != want {
			t.Errorf("got\n%s\nwant\n%s", err, want)
		}
		if got := strings.Join(*said, ", "); got != "LogGroup CREATE_COMPLETE, SpotHandlerFunction CREATE_FAILED, Rule CREATE_FAILED, cast-kops-prod-example-com-7405b0253a21 ROLLBACK_COMPLETE" {
			t.Errorf("the events are %s", got)
		}
	})
}

// TestSlowStart: for a moment after an operation is started, the stack looks as before.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &cloudFormation{statuses: []string{"UPDATE_COMPLETE"}, late: 2, events: ended("UPDATE_ROLLBACK_COMPLETE"),
			after: []string{"UPDATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"}}
		r, _ := newRun(t, s)
		p, err := r.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var failed *FailedError
		if err := r.Apply(t.Context(), p); !errors.As(err, &failed) || failed.Stack.Status != "UPDATE_ROLLBACK_COMPLETE" {
			t.Errorf("the update ends with %v", err)
		}
	})
}

// TestFailedError of updates and deletions.
func TestFailedError(t *testing.T) {
	for status, want := range map[string]string{
		"UPDATE_ROLLBACK_COMPLETE": "updating stack s failed and was rolled back: the function runs as before",
		"UPDATE_ROLLBACK_FAILED":   "aws cloudformation continue-update-rollback",
		"DELETE_FAILED":            "deleting stack s failed",
		"IMPORT_COMPLETE":          "has left stack s in IMPORT_COMPLETE",
	} {
		err := &FailedError{Stack: awsadmin.Stack{Name: "s", Status: status, Reason: "the reason"}}
		if got := err.Error(); !strings.Contains(got, want) || !strings.Contains(got, "because\n  the reason\n") {
			t.Errorf("%s: %s", status, got)
		}
	}
}

// TestFailedStackIsRecreated: CloudFormation only allows to delete a stack that it could not create.
func TestFailedStackIsRecreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &cloudFormation{statuses: []string{"ROLLBACK_COMPLETE"}, after: []string{"CREATE_IN_PROGRESS", "CREATE_COMPLETE"},
			events: ended("CREATE_COMPLETE")}
		r, _ := newRun(t, s)
		p, err := r.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var verbs []string
		for _, c := range p.Changes {
			verbs = append(verbs, string(c.Verb)+" "+c.Kind)
		}
		if p.Parameters["Mode"] != "observe" {
			t.Errorf("the parameters are lost: %v", p.Parameters)
		}
		if got := strings.Join(verbs, ", "); got != "keep S3 bucket, keep S3 object, keep S3 object, delete CloudFormation stack, create CloudFormation stack" {
			t.Errorf("the plan is %s", got)
		}
		if err := r.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, call := range s.calls {
			if !strings.HasPrefix(call, "Describe") {
				order = append(order, call)
			}
		}
		if got := strings.Join(order, ", "); got != "DeleteStack, CreateChangeSet, ExecuteChangeSet" {
			t.Errorf("the calls are %s", got)
		}
	})
}

// TestStackTags: a stack keeps its tags, gets those of --tag, and cannot be given AWS's own.
func TestStackTags(t *testing.T) {
	for status, want := range map[string]string{"UPDATE_COMPLETE": "cost=1, team=a", "": "cost=1"} {
		synctest.Test(t, func(t *testing.T) {
			s := &cloudFormation{statuses: []string{status}}
			r, _ := newRun(t, s)
			r.Spec.Tags = map[string]string{"cost": "1"}
			if _, err := r.Plan(t.Context()); err != nil || strings.Join(s.tags, ", ") != want {
				t.Errorf("a stack with status %q gets the tags %q, %v; want %s", status, s.tags, err, want)
			}
		})
	}
}

// TestPlanWaits for a running operation, and deletes abandoned change sets of ours.
func TestPlanWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &cloudFormation{statuses: []string{"UPDATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"}}
		r, _ := newRun(t, s)
		began := time.Now()
		if _, err := r.Plan(t.Context()); err != nil || time.Since(began) < 2*time.Second {
			t.Errorf("it took %s: %v", time.Since(began), err)
		}
		s = &cloudFormation{statuses: []string{"REVIEW_IN_PROGRESS"}}
		r, _ = newRun(t, s)
		if _, err := r.Plan(t.Context()); err != nil || s.calls[3] != "DeleteStack" {
			t.Errorf("%v: %v", s.calls, err)
		}
		s = &cloudFormation{statuses: []string{"REVIEW_IN_PROGRESS"}, proposals: `<member><ChangeSetName>samcli-deploy1</ChangeSetName></member>`}
		r, _ = newRun(t, s)
		if _, err := r.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "change set samcli-deploy1") || slices.Contains(s.calls, "DeleteStack") {
			t.Errorf("a change set of somebody else: %v: %v", s.calls, err)
		}
		s = &cloudFormation{statuses: []string{"UPDATE_ROLLBACK_FAILED"}}
		r, _ = newRun(t, s)
		if _, err := r.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "continue-update-rollback") {
			t.Errorf("a failed rollback: %v", err)
		}
	})
}

// TestForeignBucket: it is used without changes, and not deleted.
func TestForeignBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &cloudFormation{owner: "terraform"}
		r, _ := newRun(t, s)
		p, err := r.Plan(t.Context())
		if err != nil || p.Changes[0].Verb != change.Keep || !strings.Contains(p.Changes[0].Why, "somebody else has created it") {
			t.Errorf("%v: %+v", err, p.Changes)
		}
		for _, c := range p.Changes {
			if c.Changes() && strings.HasPrefix(c.Kind, "S3") {
				t.Errorf("it is changed: %s", c.Row())
			}
		}
		away, err := r.PlanRemoval(t.Context())
		last := away.Code.Changes[len(away.Code.Changes)-1]
		if err != nil || last.Verb != change.Leave || last.Kind != KindBucket {
			t.Errorf("%v: %+v", err, away.Code.Changes)
		}
	})
}

// TestBucketOwner: each request to S3 names the account that must own the bucket, but the one that creates it.
func TestBucketOwner(t *testing.T) {
	s := &cloudFormation{}
	r, _ := newRun(t, s)
	const bucket, owner = "b", "123456789012"
	_, bucketErr := r.AWS.Bucket(t.Context(), bucket, owner, "k", "v")
	_, objectsErr := r.AWS.Objects(t.Context(), bucket, owner, "p")
	_, objectErr := r.AWS.Object(t.Context(), bucket, owner, "k")
	err := errors.Join(bucketErr, objectsErr, objectErr)
	for _, call := range []awsadmin.Call{awsadmin.CreateBucket(bucket, "eu-west-1"), awsadmin.BlockPublicAccess(bucket, owner),
		awsadmin.PutBucketPolicy(bucket, owner, "{}"), awsadmin.TagBucket(bucket, owner, map[string]string{"k": "v"}),
		awsadmin.PutObject(bucket, owner, "k", nil),
		awsadmin.DeleteObject(bucket, owner, "k"), awsadmin.DeleteBucket(bucket, owner)} {
		err = errors.Join(err, r.AWS.Do(t.Context(), call))
	}
	if err != nil || len(s.unowned) != 1 || !strings.HasPrefix(s.unowned[0], "PUT ") {
		t.Errorf("without the owner: %q; want only the creation: %v", s.unowned, err)
	}
}

// TestDiscard deletes a stack with nothing but our change set, unless somebody else has used it meanwhile.
func TestDiscard(t *testing.T) {
	s := &cloudFormation{}
	r, _ := newRun(t, s)
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.statuses, s.looks = []string{"CREATE_COMPLETE"}, 0
	if err := r.Discard(t.Context(), p); err != nil || slices.Contains(s.calls, "DeleteStack") {
		t.Errorf("%v: %v", s.calls, err)
	}
	s.statuses, s.looks = []string{"REVIEW_IN_PROGRESS"}, 0
	if err := r.Discard(t.Context(), p); err != nil || !slices.Contains(s.calls, "DeleteStack") {
		t.Errorf("%v: %v", s.calls, err)
	}
}

// TestRefusedUpload: if the code cannot be uploaded, the change set that was shown does not stay.
func TestRefusedUpload(t *testing.T) {
	s := &cloudFormation{statuses: []string{"UPDATE_COMPLETE"}, denied: "PutObject"}
	r, _ := newRun(t, s)
	s.keys = s.keys[1:]
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(t.Context(), p); !errors.Is(err, awsadmin.ErrDenied) || slices.Contains(s.calls, "ExecuteChangeSet") || !slices.Contains(s.calls, "DeleteChangeSet") {
		t.Errorf("%v: %v", s.calls, err)
	}
}

// TestTemplateURL: the executed change set reads the template from the bucket. Only the one that is shown before the
// template is uploaded has it inline, if CloudFormation accepts that.
func TestTemplateURL(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Deployment, *cloudFormation)
		shown  bool   // the resources
		want   string // templates of the change sets; U is the URL
		adds   string // by the second change set
		err    string
	}{
		"uploaded":          {func(*Deployment, *cloudFormation) {}, true, "U", "", ""},
		"not uploaded":      {func(_ *Deployment, s *cloudFormation) { s.keys = s.keys[:1] }, true, "inline U", "", ""},
		"changed meanwhile": {func(_ *Deployment, s *cloudFormation) { s.keys = s.keys[:1] }, true, "inline U", "Another", "the stack has changed since the plan was shown"},
		"too long": {func(r *Deployment, _ *cloudFormation) {
			r.Template.text = append(slices.Clone(r.Template.text), bytes.Repeat([]byte("#\n"), awsadmin.MaxTemplate/2)...)
		}, false, "U", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &cloudFormation{after: []string{"CREATE_COMPLETE"}, events: ended("CREATE_COMPLETE")}
				r, _ := newRun(t, s)
				c.change(r, s)
				p, err := r.Plan(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if shown := p.Changes[len(p.Changes)-1].Name == "SpotHandlerFunction"; shown != c.shown {
					t.Errorf("the resources are shown: %v", shown)
				}
				s.adds = c.adds
				if err := r.Apply(t.Context(), p); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v; want %q", err, c.err)
				}
				to, err := r.packagedTemplate()
				if err != nil || !strings.HasPrefix(to.url, "https://cast-kops-code-123456789012-eu-west-1.s3.eu-west-1.amazonaws.com/prod-example-com-") {
					t.Errorf("%s, %v", to.url, err)
				}
				if got := strings.ReplaceAll(strings.Join(s.templates, " "), to.url, "U"); got != c.want {
					t.Errorf("templates: %s; want %s", got, c.want)
				}
				if slices.Contains(s.calls, "ExecuteChangeSet") != (c.err == "") {
					t.Errorf("calls: %q", s.calls)
				}
			})
		})
	}
}

func TestParseSet(t *testing.T) {
	template, err := ParseTemplate(kopsspot.Template)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSet(template, []string{"Mode=observe", "CA=abc="})
	if err != nil || got["Mode"] != "observe" || got["CA"] != "abc=" {
		t.Errorf("%v, %v", got, err)
	}
	const secret = "slack+https://hooks.slack.com/x"
	file, empty := filepath.Join(t.TempDir(), "url"), filepath.Join(t.TempDir(), "empty")
	if err := errors.Join(os.WriteFile(file, []byte(secret+"\n"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for argument, want := range map[string]string{"NotifyUrl=file:" + file: secret, "NotifyUrl=": ""} {
		if got, err := ParseSet(template, []string{argument}); err != nil || got["NotifyUrl"] != want {
			t.Errorf("%s: %v", argument, err)
		}
	}
	for argument, says := range map[string]string{"NotifyUrl=" + secret: "write it to a file", "NotifyURL=" + secret: "--set NotifyURL: unknown parameter",
		secret: "--set: use NAME=VALUE", "NotifyUrl=file:/none": "choose another file", "NotifyUrl=file:" + empty: "is empty"} {
		if _, err := ParseSet(template, []string{argument}); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %q", argument, err, says)
		}
	}
	if _, err := ParseSet(template, []string{"Mode", "Mood=act", "ShortName=other-01234567"}); err == nil ||
		!strings.Contains(err.Error(), "--set ShortName: omit it") || !strings.Contains(err.Error(), "--set Mode: use NAME=VALUE") ||
		!strings.Contains(err.Error(), "unknown parameter: use one of AlarmTopicArn, ") {
		t.Errorf("%v", err)
	}
}

// TestSecretParameter: a plan keeps or changes NotifyUrl, and shows neither the old value nor the new one.
func TestSecretParameter(t *testing.T) {
	const secret = "slack+https://hooks.slack.com/x"
	for name, c := range map[string]struct {
		status, sent string
		overrides    map[string]string
		shows        []string
	}{
		"kept":              {"CREATE_COMPLETE", "previous", map[string]string{}, nil},
		"new":               {"CREATE_COMPLETE", secret, map[string]string{"NotifyUrl": secret}, []string{"- NotifyUrl=****", "+ NotifyUrl=(new)"}},
		"removed":           {"CREATE_COMPLETE", "", map[string]string{"NotifyUrl": ""}, []string{"- NotifyUrl=****", "+ NotifyUrl="}},
		"of a failed stack": {"ROLLBACK_COMPLETE", "none", map[string]string{}, []string{"set NotifyUrl again, if you had set it"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &cloudFormation{statuses: []string{c.status}, after: []string{"UPDATE_COMPLETE"}, events: ended("UPDATE_COMPLETE")}
				r, _ := newRun(t, s)
				r.Spec.Overrides = c.overrides
				p, err := r.Plan(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				shown := fmt.Sprint(p.Changes)
				for _, want := range c.shows {
					if !strings.Contains(shown, want) {
						t.Errorf("the plan lacks %q: %s", want, shown)
					}
				}
				if strings.Contains(shown, secret) {
					t.Errorf("the plan shows the secret: %s", shown)
				}
				if err := r.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if got := append(s.notify, "none"); got[0] != c.sent {
					t.Errorf("sent %q, want %q", got, c.sent)
				}
				public, err := r.Spec.PublicParameters(r.Template, map[string]string{"NotifyUrl": awsadmin.HiddenValue})
				if _, is := public["NotifyUrl"]; is || (err != nil) != (c.overrides["NotifyUrl"] != "") {
					t.Errorf("the public parameters are %v, %v", public, err)
				}
			})
		})
	}
}

// TestParameters: a discovered value has the lowest precedence.
func TestParameters(t *testing.T) {
	template, err := ParseTemplate(kopsspot.Template)
	if err != nil {
		t.Fatal(err)
	}
	w := Spec{Values: iam.Values{Cluster: "prod.example.com"}, Discovered: map[string]string{"Server": "https://found", "Login": "iam", "CA": "Zm91bmQ="},
		Overrides: map[string]string{"CA": "Z2l2ZW4="}}
	before := map[string]string{"Server": "https://before", "Login": "iam", "CA": "YmVmb3Jl", "Gone": "x", "Mode": "observe", "Force": "allow"}
	got := w.StackParameters(template, before)
	want := map[string]string{"Cluster": "prod.example.com", "ShortName": "prod-example-com-7405b0253a21", "Server": "https://before", "CA": "Z2l2ZW4=", "Mode": "observe"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if stays := w.keptParameters(before); strings.Join(stays, ",") != "Server" {
		t.Errorf("kept: %v", stays)
	}
	w.Refresh = true
	if got := w.StackParameters(template, before); got["Server"] != "https://found" || got["CA"] != "Z2l2ZW4=" ||
		got["Mode"] != "observe" || w.keptParameters(before) != nil {
		t.Errorf("refreshed: %v", got)
	}
}
