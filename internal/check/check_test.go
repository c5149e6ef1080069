package check

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
)

func TestAllows(t *testing.T) {
	const rule = "arn:aws:events:eu-west-1:123456789012:rule/cast-kops-x.spot-warning"
	const invoke = `"Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"}`
	for name, c := range map[string]struct {
		statement string
		want      bool
	}{
		"for this rule": {`"Effect": "Allow", ` + invoke + `, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `"}}`, true},
		"for all rules": {`"Effect": "Allow", ` + invoke, true},
		"for another rule": {`"Effect": "Allow", ` + invoke + `, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `s"}}`,
			false},
		"for another service": {`"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "s3.amazonaws.com"}`,
			false},
		"for everybody":  {`"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": "*"`, false},
		"another action": {`"Effect": "Allow", "Action": "lambda:GetFunction", "Principal": {"Service": "events.amazonaws.com"}`, false},
		"a denial":       {`"Effect": "Deny", ` + invoke, false},
	} {
		policy := `{"Version": "2012-10-17", "Statement": [{` + c.statement + `}]}`
		if got := allows(policy, rule); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if allows("", rule) {
		t.Error("no policy allows the rule")
	}
}

// TestInvokers: everybody but EventBridge for the cluster's own rules is reported.
func TestInvokers(t *testing.T) {
	const rule = "arn:aws:events:eu-west-1:123456789012:rule/"
	for statement, want := range map[string]bool{
		`"Principal": {"Service": "events.amazonaws.com"}, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + iam.RuleName("prod.example.com", "health") + `"}}`: false,
		`"Principal": {"Service": "events.amazonaws.com"}, "Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `another"}}`:                                       true,
		`"Principal": {"Service": "events.amazonaws.com"}, "Condition": {"StringEquals": {"AWS:SourceAccount": "123456789012"}}`:                                     true,
		`"Principal": {"Service": "events.amazonaws.com"}`:       true,
		`"Principal": {"AWS": "arn:aws:iam::210987654321:root"}`: true,
		`"Principal": "*"`: true,
	} {
		now := &checker{Checks: Checks{Values: iam.Values{Cluster: "prod.example.com", Region: "eu-west-1"}}, name: "f"}
		now.checkInvokers(`{"Statement": [{"Sid": "mine", "Effect": "Allow", "Action": "lambda:InvokeFunction", ` + statement + `}]}`)
		if found := len(now.findings) == 1 && now.findings[0].Level == change.Warn && now.findings[0].Name == Permission &&
			strings.HasSuffix(now.findings[0].Advice, ": aws lambda remove-permission --function-name f --statement-id mine --region eu-west-1"); found != want {
			t.Errorf("%s: %+v", statement, now.findings)
		}
	}
}

// TestReplacedCode: a function with other code than the uploaded one fails.
func TestReplacedCode(t *testing.T) {
	now := &checker{Checks: Checks{Code: []byte("code"), Values: iam.Values{Cluster: "prod.example.com"}}, function: &awsadmin.Function{
		State: "Active", CodeSHA256: codeSHA256([]byte("other")), Environment: map[string]string{"KOPS_SPOT_CLUSTER": "prod.example.com"}}}
	if err := now.checkFunction(t.Context()); err != nil || now.findings.First() != Function ||
		!strings.Contains(now.findings[0].Detail, "it does not run the code that was uploaded") {
		t.Errorf("%+v, %v", now.findings, err)
	}
	if got := codeSHA256([]byte("code")); got != "VpTQii5T/8rgwxA+Wtb2B2q9lg6x+KVldwQLwQKPcCs=" {
		t.Errorf("got %s", got)
	}
}

func TestSamePattern(t *testing.T) {
	want := map[string]any{"source": []any{"aws.ec2"}, "detail-type": []any{"a"}}
	for text, same := range map[string]bool{
		`{"detail-type": ["a"], "source": ["aws.ec2"]}`:                     true,
		`{"source": ["aws.ec2"]}`:                                           false,
		`{"detail-type": ["a"], "source": ["aws.ec2"], "account": ["123"]}`: false,
		`no JSON`: false,
	} {
		if got := awsadmin.SameDocument(text, pattern(install.Event{Pattern: want})); got != same {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestSkippedSelfChecks: the field `skipped` decides, not the detail.
func TestSkippedSelfChecks(t *testing.T) {
	now := &checker{self: &app.SelfCheck{Checks: []app.Check{
		{Name: "authentication", Detail: "the token expired", Advice: "renew it"},
		{Name: "rbac", Skipped: true, Detail: "any text", Advice: "see the first"},
		{Name: "aws", Detail: "skipped: any text", Advice: "allow it"},
	}}}
	if err := now.checkInside(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]change.Level{Role: change.Fail, Network: change.OK, Authentication: change.Fail, RBAC: change.Warn}
	for _, f := range now.findings {
		if f.Level != want[f.Name] {
			t.Errorf("%+v, want %s", f, want[f.Name])
		}
	}
	if len(now.findings) != len(want) {
		t.Errorf("got %+v", now.findings)
	}
	if f := now.findings[3]; !strings.HasPrefix(f.Detail, "skipped: needs ") {
		t.Errorf("got %+v", f)
	}
}

// TestCASTAI has a link if it is configured.
func TestCASTAI(t *testing.T) {
	for name, c := range map[string]struct {
		checks []app.Check
		want   change.Level // empty for no link
	}{
		"not configured":       {},
		"accepted":             {[]app.Check{{Name: "castai key", OK: true}, {Name: "castai", OK: true}}, change.OK},
		"a rejected key":       {[]app.Check{{Name: "castai key", OK: true}, {Name: "castai", Detail: "401", Advice: "new"}}, change.Fail},
		"a key without a text": {[]app.Check{{Name: "castai key", Detail: "it is empty", Advice: "store it"}}, change.Fail},
	} {
		now := &checker{self: &app.SelfCheck{Checks: c.checks}}
		if err := now.checkInside(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got change.Level
		for _, f := range now.findings {
			if f.Name == CASTAI {
				got = f.Level
			}
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %q", name, now.findings, c.want)
		}
	}
}

// TestShutdownGrace: what counts is the setting of the function that runs.
func TestShutdownGrace(t *testing.T) {
	for grace, want := range map[string]change.Level{"": change.OK, "20s": change.Warn} {
		now := &checker{Checks: Checks{Site: install.Site{Workers: []install.Worker{{Node: "i-1"}}, Given: map[string]string{"ShutdownGrace": "1m"}}},
			function: &awsadmin.Function{Environment: map[string]string{"KOPS_SPOT_SHUTDOWN_GRACE": grace}}}
		if err := now.shutdown(t.Context()); err != nil || len(now.findings) != 1 || now.findings[0].Level != want ||
			want == change.Warn && !strings.Contains(now.findings[0].Advice, "whether ShutdownGrace=20s is right") {
			t.Errorf("%q: %+v, %v", grace, now.findings, err)
		}
	}
}

// TestConcurrency: EC2 can reclaim all Spot instances at once. Only a reservation is the cluster's own.
func TestConcurrency(t *testing.T) {
	own := append(slices.Repeat([]awsadmin.Instance{{Spot: true}}, 10), awsadmin.Instance{Spot: true, Ended: true},
		awsadmin.Instance{})
	for name, c := range map[string]struct {
		reserved *int
		settings string // Lambda's response; a denial if empty
		ec2      string
		want     change.Level
		parts    []string
	}{
		"enough reserved": {reserved: new(10), want: change.OK,
			parts: []string{"reserved concurrency of the function: 10, for 10 Spot instances of the cluster"}},
		"too little reserved": {reserved: new(9), settings: `{"AccountLimit": {"UnreservedConcurrentExecutions": 101}}`, want: change.Warn,
			parts: []string{"9, less than the 10 Spot instances of the cluster", "--set ReservedConcurrency=10"}},
		"too little to reserve": {reserved: new(9), settings: `{"AccountLimit": {"UnreservedConcurrentExecutions": 100}}`, want: change.Warn,
			parts: []string{"9, less than the 10 Spot instances of the cluster", "--quota-code L-B99A9384"}},
		"too little reserved of an unknown limit": {reserved: new(9), want: change.Warn,
			parts: []string{"9, less than the 10 Spot instances of the cluster", "--quota-code L-B99A9384"}},
		"enough": {settings: `{"AccountLimit": {"ConcurrentExecutions": 900, "UnreservedConcurrentExecutions": 12}}`,
			ec2: instancesOf("a", "b", "b", "c", "c", "c", "d", "d", "e", "e", "f", "g"), want: change.OK,
			parts: []string{"of the account: 12, for 12 Spot instances of all kOps clusters in the region"}},
		"too little": {settings: `{"AccountLimit": {"ConcurrentExecutions": 900, "UnreservedConcurrentExecutions": 11}}`,
			ec2: instancesOf("a", "b", "b", "c", "c", "c", "d", "d", "e", "e", "f", "g"), want: change.Warn,
			parts: []string{"11, less than the 12 Spot instances", "more than 11 at once", "--quota-code L-B99A9384"}},
		"the limit is unknown": {want: change.Warn,
			parts: []string{"could not check: ", "allow lambda:GetAccountSettings"}},
		"the instances are unknown": {settings: `{"AccountLimit": {"UnreservedConcurrentExecutions": 11}}`,
			want: change.Warn, parts: []string{"could not check: ", "allow ec2:DescribeInstances"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				response, denial := c.ec2, "<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>"
				if strings.HasSuffix(r.URL.Path, "/account-settings") {
					response, denial = c.settings, "{}"
					w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
				} else if r.FormValue("Filter.1.Name") != "tag:KubernetesCluster" || r.FormValue("Filter.1.Value.1") != "*" {
					t.Errorf("got %v", r.Form)
				}
				if response == "" {
					w.WriteHeader(http.StatusForbidden)
				}
				fmt.Fprint(w, cmp.Or(response, denial))
			}))
			defer server.Close()
			now := &checker{Checks: Checks{Instances: own, Site: install.Site{AWS: awsadmin.New(aws.Config{Region: "eu-west-1",
				BaseEndpoint: &server.URL, Credentials: aws.AnonymousCredentials{}})}}}
			now.function = &awsadmin.Function{Reserved: c.reserved}
			if err := now.concurrency(t.Context()); err != nil {
				t.Fatal(err)
			}
			f := now.findings[0]
			for _, part := range c.parts {
				if !strings.Contains(f.Detail+f.Advice, part) {
					t.Errorf("got %+v, want %q", f, part)
				}
			}
			if f.Level != c.want || f.Name != Concurrency {
				t.Errorf("got %+v, want %s", f, c.want)
			}
		})
	}
}

// instancesOf is EC2's response with a running Spot instance of each cluster, and some that do not count.
func instancesOf(clusters ...string) string {
	var b strings.Builder
	one := func(lifecycle, state, cluster string) {
		fmt.Fprintf(&b, "<item><instancesSet><item><instanceLifecycle>%s</instanceLifecycle><instanceState><name>%s</name>"+
			"</instanceState><tagSet><item><key>KubernetesCluster</key><value>%s</value></item></tagSet></item></instancesSet>"+
			"</item>", lifecycle, state, cluster)
	}
	for _, cluster := range clusters {
		one("spot", "running", cluster)
	}
	one("spot", "terminated", "a")
	one("", "running", "a")
	return "<DescribeInstancesResponse><reservationSet>" + b.String() + "</reservationSet></DescribeInstancesResponse>"
}
