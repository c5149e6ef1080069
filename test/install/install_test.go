package install

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

// told is what install, uninstall and check tell as JSON.
type told struct {
	Applied  bool
	Plan     change.Plan
	First    string
	OK       bool
	Findings change.Findings
}

// asJSON runs the command line and reads what it tells; whether it has succeeded is the caller's to judge.
func asJSON(t *testing.T, args ...string) (is told, stderr string, err error) {
	t.Helper()
	stdout, stderr, err := kopsSpot(t, append(args, "--output", "json")...)
	if bad := json.Unmarshal([]byte(stdout), &is); bad != nil {
		log := world.moto.Log()
		t.Fatalf("kops-spot %s tells %q: %v\n%s\n%s", strings.Join(args, " "), stdout, bad, stderr, log[max(0, len(log)-3000):])
	}
	return is, stderr, err
}

// quiet waits until nothing is under way in the account any more.
func quiet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := world.bridge.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestFromNothingToNothing is an operator's way, from the first look to the last; its parts follow one another.
func TestFromNothingToNothing(t *testing.T) {
	world.cut.Reset()
	before := snapshot(t)

	is, _, err := asJSON(t, "check")
	if err == nil || is.First != "rule" || is.OK || is.Findings[0].Advice != "kops-spot install makes it" ||
		!strings.HasPrefix(is.Findings[0].Detail, "there is no rule "+names.RuleName(cluster, "rehearsal")) {
		t.Errorf("where nothing is installed the check says %+v, %v", is, err)
	}
	if is, _, err = asJSON(t, slices.Concat([]string{"check", "--pre"}, installed()[1:])...); err != nil || !is.OK {
		t.Errorf("before: %+v, %v", is, err)
	}
	isTheSame(t, "after looks", snapshot(t), before)

	// Nobody is asked where there is no terminal, and nothing stays of what was proposed.
	_, stderr, err := kopsSpot(t, installed()...)
	if err == nil || !strings.Contains(stderr, "add --yes") || !strings.Contains(stderr, "+ create Lambda Function") {
		t.Errorf("without a yes: %v\n%s", err, stderr)
	}
	isTheSame(t, "without a yes", snapshot(t), before)

	// What is wrong is refused before anything is written: what a parameter may be, by CloudFormation.
	const set, asked = "where a parameter is wrong, set it with --set NAME=VALUE and run this again", "cloudformation:CreateChangeSet"
	for _, c := range []struct {
		wrong   []string
		says    []string
		written string
	}{
		{[]string{"--set", "Reserve=31s"}, []string{"Parameter Reserve failed to satisfy constraint: it is from 0s to 30s", set}, asked},
		{[]string{"--set", "Rebalance=drain"}, []string{"RebalanceRule: set it to ENABLED", set}, asked},
		{[]string{"--set", "Mood=act"}, []string{"--set Mood: there is no such parameter"}, ""},
		{[]string{"--set", "Mode"}, []string{"--set Mode: it is NAME=VALUE"}, ""},
		{[]string{"--set", "Architecture=arm64"}, []string{"arm64"}, ""},
		{[]string{"--code", "/none"}, []string{"/none"}, ""},
	} {
		world.cut.Reset()
		_, stderr, err := kopsSpot(t, installed(append(c.wrong, "--yes")...)...)
		for _, says := range c.says {
			if err == nil || !strings.Contains(stderr, says) {
				t.Errorf("%q: %v, want %q\n%s", c.wrong, err, says, stderr)
			}
		}
		if written := strings.Join(world.cut.Written(), " "); written != c.written {
			t.Errorf("%q: written %q, want %q", c.wrong, written, c.written)
		}
	}
	isTheSame(t, "after what is wrong", snapshot(t), before)

	files, stderr := exported(t)
	const late = ":secret:cast-kops/" + cluster + "/token-AbCdEf"
	for name, want := range map[string]string{"template.yaml": "CodeUri: s3://cast-kops-code-" + account, "parameters.json": late, "token.yaml": "service-account-token",
		"rbac.yaml": "kind: ClusterRole"} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not have %q:\n%.3000s", name, want, files[name])
		}
	}
	if len(files) != 4 || !strings.Contains(files["parameters.json"], `"ParameterValue": "https://127.0.0.1:`) || !strings.Contains(stderr, "make the secret, and export again") {
		t.Errorf("--export: %q\n%s", files, stderr)
	}
	const castai = "arn:aws:secretsmanager:" + region + ":" + account + ":secret:castai-AbCdEf"
	if files, _ := exported(t, "--set", "SecretArns="+castai); !strings.Contains(files["parameters.json"], castai+",arn:aws") || !strings.Contains(files["parameters.json"], late) {
		t.Errorf("another secret pushes the log-in's out: %s", files["parameters.json"])
	}
	if files, _ := exported(t, "--set", "Login=ssm:/my/login"); len(files) != 3 || files["token.yaml"] != "" || !strings.Contains(files["rbac.yaml"], "kind: ClusterRole") ||
		!strings.Contains(files["parameters.json"], `"ParameterValue": "ssm:/my/login"`) {
		t.Errorf("a log-in that somebody sees to himself: %q", files)
	}
	isTheSame(t, "after --export", snapshot(t), before)

	// The first run, and the second.
	first, stderr, err := asJSON(t, installed("--yes")...)
	if err != nil || !first.Applied || first.Findings.Failed() {
		t.Fatalf("the first run: %v\n%+v\n%s", err, first.Findings, stderr)
	}
	readsItsToken(t)
	after := snapshot(t)
	world.cut.Reset()
	second, stderr, err := asJSON(t, installed("--yes")...)
	if err != nil || second.Applied || !second.Plan.Empty() {
		t.Errorf("the second run: %v\n%+v\n%s", err, second, stderr)
	}
	for _, w := range world.cut.Written() {
		if !strings.HasSuffix(w, "ChangeSet") { // by which CloudFormation is asked
			t.Errorf("the second run has written %s", w)
		}
	}
	isTheSame(t, "after the second run", snapshot(t), after)

	// One parameter is changed, and the others stay.
	changed, stderr, err := asJSON(t, installed("--yes", "--set", "Force=never")...)
	if err != nil || !changed.Applied || !strings.Contains(stderr, "- Force=allow") || strings.Contains(stderr, "- Server=") {
		t.Errorf("a change: %v\n%s", err, stderr)
	}
	if _, stderr, err = asJSON(t, installed("--yes", "--set", "Force=allow")...); err != nil {
		t.Errorf("a change back: %v\n%s", err, stderr)
	}
	isTheSame(t, "after a change and back", snapshot(t), after)

	t.Run("an event goes all the way", anEvent)
	t.Run("a link is broken", links)
	t.Run("transcripts", transcripts)

	quiet(t)
	if is, stderr, err = asJSON(t, "uninstall", "--yes"); err != nil || !is.Applied {
		t.Fatalf("uninstall: %v\n%s\n%s", err, stderr, world.moto.Log())
	}
	isTheSame(t, "after uninstall", snapshot(t), before)
	if is, stderr, err = asJSON(t, "uninstall", "--yes"); err != nil || is.Applied || !is.Plan.Empty() {
		t.Errorf("uninstall once more: %v\n%+v\n%s", err, is, stderr)
	}
}

// readsItsToken holds the secret that the role may read to the one that is there: the end of its ARN AWS has made up.
func readsItsToken(t *testing.T) {
	t.Helper()
	secret := get[*secretsmanager.DescribeSecretOutput](t)(secretsmanager.NewFromConfig(world.aws).DescribeSecret(t.Context(),
		&secretsmanager.DescribeSecretInput{SecretId: aws.String(names.SecretName(cluster, "token"))}))
	stacks := get[*cloudformation.DescribeStacksOutput](t)(cloudformation.NewFromConfig(world.aws).DescribeStacks(t.Context(),
		&cloudformation.DescribeStacksInput{StackName: aws.String("cast-kops-prod-example-com-7405b025")}))
	for _, p := range stacks.Stacks[0].Parameters {
		if *p.ParameterKey == "SecretArns" && *p.ParameterValue == *secret.ARN {
			return
		}
	}
	t.Errorf("the role may not read %s: %v", *secret.ARN, stacks.Stacks[0].Parameters)
}

// anEvent is EC2's warning: the rule matches, the permission allows, the function runs, the node is drained, and the record is
// where somebody looks for it.
func anEvent(t *testing.T) {
	node, err := newNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := world.cp.Client()
	t.Cleanup(func() {
		if err := client.CoreV1().Nodes().Delete(context.Background(), node, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	_, err = client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{
		NodeName: node, TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "main", Image: "none"}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := eventbridge.NewFromConfig(world.aws).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
		Source: aws.String("aws.ec2"), DetailType: aws.String("EC2 Spot Instance Interruption Warning"),
		Resources: []string{"arn:aws:ec2:" + region + ":" + account + ":instance/" + node}, Detail: aws.String(`{"instance-id": "` + node + `", "instance-action": "terminate"}`)}}})
	if err != nil || sent.FailedEntryCount > 0 {
		t.Fatalf("%v %v", sent, err)
	}
	quiet(t)
	for _, d := range world.bridge.Deliveries() {
		if d.EventID == *sent.Entries[0].EventId && d.TargetARN != "" && !d.Delivered {
			t.Errorf("the event is not delivered: %s", d.Reason)
		}
	}
	n := get[*corev1.Node](t)(client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{}))
	if !n.Spec.Unschedulable {
		t.Error("the node is not cordoned")
	}
	if _, err := client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
		t.Error("the pod is still there")
	}
	queues := sqs.NewFromConfig(world.aws)
	url := get[*sqs.GetQueueUrlOutput](t)(queues.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String(names.QueueName(cluster, names.Outcomes))}))
	for {
		out := get[*sqs.ReceiveMessageOutput](t)(queues.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url.QueueUrl, MaxNumberOfMessages: 10}))
		if len(out.Messages) == 0 {
			t.Fatal("there is no record of it")
		}
		for _, m := range out.Messages {
			var record struct {
				RequestPayload  struct{ ID string }
				ResponsePayload spot.Outcome
			}
			if err := json.Unmarshal([]byte(*m.Body), &record); err != nil {
				t.Fatal(err)
			}
			if record.RequestPayload.ID != *sent.Entries[0].EventId {
				continue
			}
			if out := record.ResponsePayload; out.Result != spot.Emptied || out.Node != node {
				t.Errorf("the record says %+v", out)
			}
			return
		}
	}
}

// TestBrokenOffAnywhere: after each write to the account, run again it converges; and so does its removal.
func TestBrokenOffAnywhere(t *testing.T) {
	world.cut.Reset()
	before := snapshot(t)
	rows := map[string][]string{}
	carriedOut := func(args ...string) {
		t.Helper()
		world.cut.Reset()
		is, stderr, err := asJSON(t, args...)
		if err != nil {
			t.Fatalf("kops-spot %q: %v\n%s", args, err, stderr)
		}
		rows[args[0]] = inTheAccount(is.Plan)
		if writes := carried(args[0], world.cut.Written()); len(writes) != len(rows[args[0]]) || len(writes) < 4 {
			t.Errorf("%s: %d rows and %d writes:\n%s\n%q", args[0], len(rows[args[0]]), len(writes),
				strings.Join(rows[args[0]], "\n"), writes)
		}
	}
	carriedOut(installed("--yes")...)
	whole := snapshot(t)
	quiet(t)
	carriedOut("uninstall", "--yes")
	isTheSame(t, "after uninstall", snapshot(t), before)
	for n, more := 1, true; more; n++ {
		more = false
		for _, run := range []struct {
			args []string
			want string
		}{{installed("--yes"), whole}, {[]string{"uninstall", "--yes"}, before}} {
			quiet(t)
			world.cut.Reset()
			world.cut.CutOff(n)
			_, stderr, err := kopsSpot(t, run.args...)
			writes, cut := world.cut.Written(), world.cut.WasCut()
			world.cut.Reset()
			if cut {
				more = true
				if err == nil {
					t.Errorf("%s broken off after %s says nothing of it", run.args[0], writes[len(writes)-1])
				}
				if n, last := len(carried(run.args[0], writes)), carried(run.args[0], writes[len(writes)-1:]); len(last) > 0 &&
					!strings.Contains(stderr, "✗ "+rows[run.args[0]][n-1]+": ") {
					t.Errorf("%s broken off after %s does not say that it was to %s:\n%s", run.args[0], last[0],
						rows[run.args[0]][n-1], stderr)
				}
				must(t, run.args...)
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", run.args[0], err, stderr)
			}
			quiet(t)
			isTheSame(t, run.args[0]+" broken off after "+strings.Join(writes, ", "), snapshot(t), run.want)
			if t.Failed() {
				return
			}
		}
	}
}

// inTheAccount are the rows of a plan that are writes to AWS, as an error names them. What CloudFormation does is in
// its stack's.
func inTheAccount(plan change.Plan) (rows []string) {
	inCluster := []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Secret"}
	for _, c := range plan {
		if c.Changes() && !c.Part && !slices.Contains(inCluster, c.Kind) {
			rows = append(rows, c.Row())
		}
	}
	return rows
}

// carried are the writes of a run by which its plan is carried out, without those by which CloudFormation is asked
// what it would do: an install makes change sets, and deletes a stack only where that was no more than proposed.
func carried(command string, writes []string) (rest []string) {
	for _, w := range writes {
		asks := w == "cloudformation:CreateChangeSet" || w == "cloudformation:DeleteChangeSet"
		if !asks && (command != "install" || w != "cloudformation:DeleteStack") {
			rest = append(rest, w)
		}
	}
	return rest
}

// TestNoSecretIsShown in anything that was said: the token is in the secret while it is installed.
func TestNoSecretIsShown(t *testing.T) {
	world.cut.Reset()
	stdout, stderr := must(t, installed("--yes")...)
	files, _ := exported(t)
	checked, said := must(t, "check", "--output", "json")
	out := get[*secretsmanager.GetSecretValueOutput](t)(secretsmanager.NewFromConfig(world.aws).GetSecretValue(t.Context(),
		&secretsmanager.GetSecretValueInput{SecretId: aws.String(names.SecretName(cluster, "token"))}))
	var held struct{ Token string }
	if err := json.Unmarshal([]byte(*out.SecretString), &held); err != nil || len(held.Token) < 100 {
		t.Fatalf("the secret holds no token: %v", err)
	}
	all := stdout + stderr + fmt.Sprint(files) + checked + said
	quiet(t)
	more, evenMore := must(t, "uninstall", "--yes")
	if strings.Contains(all+more+evenMore, held.Token) || regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20}`).MatchString(all+more+evenMore) {
		t.Error("the token was shown")
	}
}
