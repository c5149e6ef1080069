package operator

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/template"
)

// installed returns the arguments of an install for the architecture of this computer.
func installed(more ...string) []string {
	return slices.Concat([]string{"install", "--code", code(), "--set", "Architecture=x86_64"}, more)
}

// exported returns the files that install exports, by name.
func (w *world) exported(more ...string) (files map[string]string, stderr string) {
	w.Helper()
	dir := w.TempDir()
	_, stderr = w.mustRun(installed(append(more, "--export", dir)...)...)
	return w.files(dir), stderr
}

// grants runs grant before there is a stack. It gives the access that install gives, and prints install's parameters.
func (w *world) grants(before []string) {
	w.Helper()
	said, stderr := w.mustRun("grant", "--yes", "--set", "Mode=observe")
	transcript(w.T, "grant", stderr)
	if !strings.Contains(said, "stack "+names.FunctionName(cluster)) || !strings.Contains(said, "Mode               observe\n") {
		w.Errorf("grant prints\n%s", said)
	}
	granted := w.snapshot()
	arguments, _ := w.mustRun("grant", "--set", "Mode=observe", "--output", "sam")
	w.unchanged("after grant again", granted)
	parameters := map[string]string{}
	for _, argument := range strings.Fields(arguments) {
		name, value, _ := strings.Cut(argument, "=")
		parameters[name] = value
	}
	dir := w.TempDir()
	_, stderr = w.mustRun(installed("--set", "Mode=observe", "--export", dir)...)
	var want []struct{ ParameterKey, ParameterValue string }
	try(json.Unmarshal([]byte(w.files(dir)["parameters.json"]), &want))
	for _, p := range want {
		if p.ParameterKey != "Architecture" && parameters[p.ParameterKey] != p.ParameterValue {
			w.Errorf("grant prints %s=%q, install deploys %q", p.ParameterKey, parameters[p.ParameterKey], p.ParameterValue)
		}
	}
	if len(parameters) != len(want)-1 || parameters["ShortName"] == "" {
		w.Errorf("grant prints the parameters %v, install deploys %v", parameters, want)
	}
	w.unchanged("after --export", granted)
	w.deploysExport(dir, stderr)
	w.unchanged("after grant and uninstall", before)
}

// deploysExport deploys exported files by the commands that the export has printed, and with a bucket of somebody else.
// Then install has nothing to change. At the end, it uninstalls.
func (w *world) deploysExport(dir, stderr string) {
	w.Helper()
	storage, bucket := s3.NewFromConfig(w.direct), aws.String("cast-kops-code-"+account+"-"+region)
	must(storage.CreateBucket(w.Context(), &s3.CreateBucketInput{Bucket: bucket,
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region}}))
	must(storage.PutBucketTagging(w.Context(), &s3.PutBucketTaggingInput{Bucket: bucket,
		Tagging: &s3types.Tagging{TagSet: []s3types.Tag{{Key: aws.String("owner"), Value: aws.String("somebody")}}}}))
	_, commands, found := strings.Cut(stderr, "or run:\n")
	if !found || strings.Count(commands, "\n") != 5 {
		w.Fatalf("the export prints\n%s", stderr)
	}
	w.moduleReads(dir)
	try(cp().Client().RbacV1().ClusterRoleBindings().Delete(w.Context(), "kops-spot", metav1.DeleteOptions{})) // of grant
	w.shell(w.TempDir(), cluster, commands)
	if is := w.succeed(installed("--set", "Mode=observe")...); !is.Plan.Empty() || is.Findings.Failed() {
		w.Errorf("after deploying the export, install changes %+v and finds %s", is.Plan, show(is.Findings))
	}
	w.mustRun("uninstall", "--yes")
	must(storage.DeleteBucketTagging(w.Context(), &s3.DeleteBucketTaggingInput{Bucket: bucket})) // moto would keep them
	must(storage.DeleteBucket(w.Context(), &s3.DeleteBucketInput{Bucket: bucket}))
}

// kinds returns the kinds of all exported objects.
func kinds(files map[string]string) (all []string) {
	for _, name := range []string{"rbac.yaml", "identity-mapping.yaml", "token.yaml"} {
		for _, m := range regexp.MustCompile(`(?m)^kind: (.+)$`).FindAllStringSubmatch(files[name], -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// moduleReads evaluates what the Terraform module reads from exported files, if Terraform is installed. The module's
// resources need a provider, which is not.
func (w *world) moduleReads(dir string) {
	w.Helper()
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		return
	}
	module, folder := string(must(os.ReadFile(filepath.Join(template.Root(), "deploy", "terraform", "main.tf")))), w.TempDir()
	blocks := regexp.MustCompile(`(?ms)^(variable|locals) .*?^}\n`).FindAllString(module, -1)
	try(os.WriteFile(filepath.Join(folder, "main.tf"), []byte(strings.Join(blocks, "")), 0o600))
	console := exec.CommandContext(w.Context(), terraform, "-chdir="+folder, "console", "-var", "export="+dir, "-var", "bucket=mine")
	console.Stdin = strings.NewReader("jsonencode({key = local.key, template = local.template, parameters = local.parameters, " +
		"objects = [for o in local.objects : o.kind]})\n")
	var got struct {
		Key, Template string
		Parameters    map[string]string
		Objects       []string
	}
	try(json.Unmarshal([]byte(must(strconv.Unquote(strings.TrimSpace(string(must(console.Output())))))), &got))
	files := w.files(dir)
	if slices.Sort(got.Objects); !slices.Equal(got.Objects, slices.Sorted(slices.Values(kinds(files)))) || len(got.Objects) < 2 {
		w.Errorf("the Terraform module applies %q", got.Objects)
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.Base(got.Key))); err != nil ||
		got.Template != strings.Replace(files["template.yaml"], "s3://cast-kops-code-"+account+"-"+region+"/", "s3://mine/", 1) ||
		got.Template == files["template.yaml"] || got.Parameters["Mode"] != "observe" || "cast-kops-"+got.Parameters["ShortName"] != names.FunctionName(cluster) {
		w.Errorf("%v: the Terraform module reads the key %s, the parameters %v and the template\n%.3000s", err, got.Key, got.Parameters, got.Template)
	}
}

// quiet waits until all events of the account are delivered.
func (w *world) quiet() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	defer cancel()
	try(events().Drain(ctx))
}

// installAndUninstall runs an operator's commands in sequence.
func installAndUninstall(t *testing.T) {
	w := home(t)
	before := w.snapshot()

	is, _, err := w.asJSON("check")
	if err == nil || is.First != "rule" || is.OK || is.Findings[0].Advice != "create it with kops-spot install" ||
		is.Findings[0].Detail != "rule "+names.RuleName(cluster, "launch-failed")+" does not exist" {
		t.Errorf("check without an installation: %+v, %v", is, err)
	}
	said, stderr := w.mustRun(append([]string{"check", "--pre"}, installed()[1:]...)...)
	transcript(t, "check-pre", stderr+said)
	w.unchanged("after the checks", before)

	// Without a terminal and --yes, nothing is changed, and the change set is deleted.
	_, stderr, err = w.command(installed()...)
	if err == nil || !strings.Contains(stderr, "add --yes") || !strings.Contains(stderr, "+ create Lambda Function") {
		t.Errorf("without --yes: %v\n%s", err, stderr)
	}
	w.unchanged("without --yes", before)

	w.grants(before)

	// Mistakes are rejected before anything is written; CloudFormation checks the parameters.
	const set, asked = "if a parameter is wrong, set it with --set NAME=VALUE and run this again", "cloudformation:CreateChangeSet"
	for _, c := range []struct {
		wrong   []string
		says    []string
		written string
	}{
		{[]string{"--set", "ForceGrace=2m"}, []string{"Parameter ForceGrace failed to satisfy constraint: must be between 1s and 1m50s", set}, asked},
		{[]string{"--set", "CASTAIURL=https://api.eu.cast.ai"}, []string{"CASTAIKey: set it to the location of the key", set}, asked},
		{[]string{"--set", "Mood=act"}, []string{"--set Mood: unknown parameter"}, ""},
		{[]string{"--set", "Mode"}, []string{"--set Mode: use NAME=VALUE"}, ""},
		{[]string{"--set", "Architecture=arm64"}, []string{"arm64"}, ""},
		{[]string{"--code", "/none"}, []string{"/none"}, ""},
	} {
		w.Reset()
		_, stderr, err := w.command(installed(append(c.wrong, "--yes")...)...)
		for _, says := range c.says {
			if err == nil || !strings.Contains(stderr, says) {
				t.Errorf("%q: %v, want %q\n%s", c.wrong, err, says, stderr)
			}
		}
		if written := strings.Join(w.Written(), " "); written != c.written {
			t.Errorf("%q: wrote %q, want %q", c.wrong, written, c.written)
		}
	}
	w.unchanged("after the mistakes", before)

	files, stderr := w.exported()
	const late = ":secret:cast-kops/" + cluster + "/token-AbCdEf"
	for name, want := range map[string]string{"template.yaml": "CodeUri: s3://cast-kops-code-" + account, "parameters.json": late, "token.yaml": "service-account-token",
		"rbac.yaml": "kind: ClusterRole"} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s does not contain %q:\n%.3000s", name, want, files[name])
		}
	}
	if len(files) != 5 || !strings.Contains(files["parameters.json"], `"ParameterValue": "https://127.0.0.1:`) ||
		!strings.Contains(stderr, "create the secret, as kops-spot grant does, and export again") || strings.Contains(stderr, "create-stack") {
		t.Errorf("--export: %q\n%s", files, stderr)
	}
	const castai = "arn:aws:secretsmanager:" + region + ":" + account + ":secret:castai-AbCdEf"
	if files, _ := w.exported("--set", "SecretArns="+castai); !strings.Contains(files["parameters.json"], castai+",arn:aws") || !strings.Contains(files["parameters.json"], late) {
		t.Errorf("the token's secret is missing next to another secret: %s", files["parameters.json"])
	}
	if files, _ := w.exported("--set", "Login=ssm:/my/login"); len(files) != 4 || files["token.yaml"] != "" || !strings.Contains(files["rbac.yaml"], "kind: ClusterRole") ||
		!strings.Contains(files["parameters.json"], `"ParameterValue": "ssm:/my/login"`) {
		t.Errorf("with Login set by the user: %q", files)
	}
	w.unchanged("after --export", before)

	// The first and the second run.
	stdout, stderr := w.mustRun(installed("--yes", "--set", "Mode=observe")...)
	transcript(t, "install", stderr+stdout)
	w.readsItsToken()
	w.exported() // with a token that could be shown
	after := w.snapshot()
	w.Reset()
	stdout, stderr = w.mustRun(installed("--yes")...)
	transcript(t, "install-again", stderr+stdout)
	for _, action := range w.Written() {
		if !strings.HasSuffix(action, "ChangeSet") { // by which CloudFormation is asked
			t.Errorf("the second run wrote %s", action)
		}
	}
	w.unchanged("after the second run", after)

	// A changed parameter; the others are kept.
	changed, stderr, err := w.asJSON(installed("--yes", "--set", "Force=never")...)
	if err != nil || !changed.Applied || !strings.Contains(stderr, "- Force=allow") || strings.Contains(stderr, "- Server=") {
		t.Errorf("a change: %v\n%s", err, stderr)
	}
	w.mustRun(installed("--yes", "--set", "Force=allow")...)
	w.unchanged("after a change and back", after)
	w.mustRun(installed("--yes", "--set", "Mode=act", "--set", "NotifyStarted=ENABLED", "--set", w.notifyURL("slack+"+slackURL))...)
	t.Run("event", func(t *testing.T) { handleEvent(t, w) })
	t.Run("transcripts", func(t *testing.T) {
		for _, name := range []string{"check", "status"} {
			stdout, stderr := w.mustRun(name)
			transcript(t, name, stderr+stdout)
		}
	})
	t.Run("rehearsals", func(t *testing.T) { rehearsals(t, w) })
	t.Run("report", func(t *testing.T) { reported(t, w) })
	t.Run("links", func(t *testing.T) { links(t, w) })
	w.quiet()
	t.Run("receivers", func(t *testing.T) { receivers(t, w) })

	w.quiet()
	stdout, stderr = w.mustRun("uninstall", "--yes")
	transcript(t, "uninstall", stderr+stdout)
	w.unchanged("after uninstall", before)
	if is, stderr, err = w.asJSON("uninstall", "--yes"); err != nil || is.Applied || !is.Plan.Empty() {
		t.Errorf("second uninstall: %v\n%+v\n%s", err, is, stderr)
	}
}

// readsItsToken checks that the role may read the token's secret, the end of whose ARN AWS has chosen. The secret's
// value is added to the search for secrets in outputs.
func (w *world) readsItsToken() {
	w.Helper()
	secret := must(secretsmanager.NewFromConfig(w.direct).DescribeSecret(w.Context(),
		&secretsmanager.DescribeSecretInput{SecretId: aws.String(names.SecretName(cluster, "token"))}))
	held := must(w.secrets().GetSecretValue(w.Context(), &secretsmanager.GetSecretValueInput{SecretId: secret.ARN}))
	if !slices.ContainsFunc(secrets.all(), func(known string) bool { return len(known) > 100 && strings.Contains(*held.SecretString, known) }) {
		w.Error("the token did not pass the proxy")
	}
	stacks := must(cloudformation.NewFromConfig(w.direct).DescribeStacks(w.Context(),
		&cloudformation.DescribeStacksInput{StackName: aws.String("cast-kops-prod-example-com-7405b0253a21")}))
	for _, p := range stacks.Stacks[0].Parameters {
		if *p.ParameterKey == "SecretArns" && *p.ParameterValue == *secret.ARN {
			return
		}
	}
	w.Errorf("the role is not allowed to read %s: %v", *secret.ARN, stacks.Stacks[0].Parameters)
}

// handleEvent sends EC2's warning: the rule matches, the function runs and drains the node, and the outcome is in the
// log.
func handleEvent(t *testing.T, w *world) {
	w = w.in(t)
	node, client := w.newNode(cluster), cp().Client()
	must(client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{
		NodeName: node, TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{Name: "main", Image: "none"}}}}, metav1.CreateOptions{}))
	internet().Posts()
	warned := time.Now()
	sent, err := eventbridge.NewFromConfig(w.direct).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
		Source: aws.String("aws.ec2"), DetailType: aws.String("EC2 Spot Instance Interruption Warning"),
		Resources: []string{"arn:aws:ec2:" + region + ":" + account + ":instance/" + node}, Detail: aws.String(`{"instance-id": "` + node + `", "instance-action": "terminate"}`)}}})
	if err != nil || sent.FailedEntryCount > 0 {
		t.Fatalf("%v %v", sent, err)
	}
	w.quiet()
	for _, d := range events().Deliveries() {
		if d.EventID == *sent.Entries[0].EventId && d.TargetARN != "" && !d.Delivered {
			t.Errorf("the event was not delivered: %s", d.Reason)
		}
	}
	n := must(client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{}))
	if !n.Spec.Unschedulable {
		t.Error("the node is not cordoned")
	}
	if _, err := client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
		t.Error("the pod still exists")
	}
	log := must(cloudwatchlogs.NewFromConfig(w.direct).FilterLogEvents(t.Context(),
		&cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String(names.LogGroup(cluster))}))
	for _, e := range log.Events {
		var line struct{ Outcome spot.Outcome }
		if json.Unmarshal([]byte(*e.Message), &line) != nil || line.Outcome.Event.ID != *sent.Entries[0].EventId {
			continue
		}
		if out := line.Outcome; out.Result != spot.Drained || out.Node != node || out.Unpublished > 0 {
			t.Errorf("outcome: %+v", out)
		}
		startedAtSlack(t, line.Outcome, warned)
		return
	}
	t.Error("no outcome in the log")
}

// reported: the report counts EC2's warning, but neither rehearsals nor previews. moto ignores the query's filter.
func reported(t *testing.T, w *world) {
	w = w.in(t)
	page := filepath.Join(t.TempDir(), "report.html")
	stdout, _ := w.mustRun("report", "--since", "1d", "--html", page, "--output", "json")
	type row struct {
		Name    string
		Events  int
		Results map[spot.Result]int
		P99     spot.Seconds `json:"time_to_empty_p99"`
	}
	var r struct {
		Total                row
		Groups, Types, Zones []row
		Rehearsals           int
		Notices              []string
	}
	try(json.Unmarshal([]byte(stdout), &r))
	// Earlier tests let an event fail.
	notices := slices.DeleteFunc(r.Notices, func(n string) bool { return strings.HasPrefix(n, "events that ended in an error") })
	if r.Total.Events != 1 || r.Total.Results[spot.Drained] != 1 || r.Total.P99 <= 0 || r.Rehearsals < 2 || len(notices) > 0 {
		t.Errorf("got %s", stdout)
	}
	var found []string
	for _, rows := range [][]row{r.Groups, r.Types, r.Zones} {
		for _, row := range rows {
			found = append(found, row.Name)
		}
	}
	if want := []string{"none", "m1.small", region}; len(found) != 3 || !slices.Equal(found[:2], want[:2]) || !strings.HasPrefix(found[2], region) {
		t.Errorf("got %q, want %q and a zone", found, want) // moto chooses the zone
	}
	if text := string(must(os.ReadFile(page))); !strings.Contains(text, "<td>m1.small</td>") || !strings.Contains(text, "</svg>") {
		t.Errorf("got the page\n%s", text)
	}
	if stdout, _ := w.mustRun("report", "--since", "1d"); !strings.Contains(stdout, "\nm1.small ") {
		t.Errorf("got %s", stdout)
	}
}

// installInterrupted: whichever write to the account a run ends at, the next one continues, with the same result as
// without an interruption; also for uninstall.
func installInterrupted(t *testing.T) {
	w := home(t)
	before := w.snapshot()
	install, uninstall := installed("--yes"), []string{"uninstall", "--yes"}
	carriedOut := func(args ...string) (rows, writes []string) {
		t.Helper()
		w.quiet()
		w.Reset()
		is, stderr, err := w.asJSON(args...)
		if err != nil || !is.Applied || is.Findings.Failed() {
			t.Fatalf("kops-spot %q: %v\n%+v\n%s", args, err, is.Findings, stderr)
		}
		rows, writes = accountRows(is.Plan), w.Written()
		if carried := carried(args[0], writes); len(carried) != len(rows) || len(rows) < 4 {
			t.Fatalf("%s: %d rows and %d writes:\n%s\n%q", args[0], len(rows), len(carried), strings.Join(rows, "\n"), carried)
		}
		return rows, writes
	}
	rows, writes := carriedOut(install...)
	whole := w.snapshot()
	rowsBack, writesBack := carriedOut(uninstall...)
	w.unchanged("after uninstall", before)

	// Interrupted while planning: each time, CloudFormation is asked again.
	n, action := 0, "not yet"
	for ; action != ""; n++ {
		action, _ = w.interruptWrite(n+1, func(action string) bool { return len(carried("install", []string{action})) == 0 }, install...)
	}
	if n < 2 {
		t.Error("install was never interrupted while planning")
	}
	w.unchanged("after an install interrupted while planning", whole)
	w.interruptEachWrite(rowsBack, writesBack, uninstall...)
	w.unchanged("after the interrupted uninstall", before)
	w.interruptEachWrite(rows, writes, install...)
	w.unchanged("after the interrupted install", whole)
	w.quiet()
	w.mustRun(uninstall...)
	w.unchanged("after the second uninstall", before)
}

// interruptEachWrite runs a command repeatedly, each time losing the response to the next write of its plan. The error
// names the row of the write.
func (w *world) interruptEachWrite(rows, writes []string, args ...string) {
	w.Helper()
	var lost []string
	for {
		action, stderr := w.interruptWrite(1, func(action string) bool { return len(carried(args[0], []string{action})) > 0 }, args...)
		if action == "" {
			break
		}
		if lost = append(lost, action); len(lost) > len(rows) || !strings.Contains(stderr, "✗ "+rows[len(lost)-1]+": ") {
			w.Fatalf("%s interrupted at %q does not name row %d of\n%s\n%s", args[0], lost, len(lost), strings.Join(rows, "\n"), stderr)
		}
		w.untagBucket(action)
	}
	if want := carried(args[0], writes); !slices.Equal(lost, want) {
		w.Errorf("%s was interrupted at\n%q\nwant\n%q", args[0], lost, want)
	}
}

// untagBucket removes the tags that moto gives a new bucket: those of the one of its name that there was before.
func (w *world) untagBucket(action string) {
	if action == "s3:PUT" {
		must(s3.NewFromConfig(w.direct).DeleteBucketTagging(w.Context(),
			&s3.DeleteBucketTaggingInput{Bucket: aws.String("cast-kops-code-" + account + "-" + region)}))
	}
}

// interruptWrite runs a command, loses the response to its nth write that counts, and returns that write; empty if
// there were fewer and the command succeeded.
func (w *world) interruptWrite(n int, counts func(action string) bool, args ...string) (action, stderr string) {
	w.Helper()
	w.quiet()
	w.Reset()
	w.CutOffAt(n, counts)
	_, stderr, err := w.command(args...)
	written, cut := w.Written(), w.WasCut()
	w.Reset()
	if cut == (err == nil) {
		w.Fatalf("%s, interrupted %t after %q: %v\n%s", args[0], cut, written, err, stderr)
	}
	if cut {
		action = written[len(written)-1]
	}
	return action, stderr
}

// accountRows returns the rows of a plan that are writes to AWS. CloudFormation's own changes belong to the row of the
// stack.
func accountRows(plan change.Plan) (rows []string) {
	inCluster := []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Secret"}
	for _, c := range plan {
		if c.Changes() && !c.Part && !slices.Contains(inCluster, c.Kind) {
			rows = append(rows, c.Row())
		}
	}
	return rows
}

// carried returns the writes that apply a plan, without those that plan: an install creates change sets, and deletes a
// stack only if it was in review.
func carried(command string, writes []string) (rest []string) {
	for _, w := range writes {
		asks := w == "cloudformation:CreateChangeSet" || w == "cloudformation:DeleteChangeSet"
		if !asks && (command != "install" || w != "cloudformation:DeleteStack") {
			rest = append(rest, w)
		}
	}
	return rest
}
