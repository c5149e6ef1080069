package operator

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/test/template"
)

const (
	nth      = "aws-node-termination-handler"
	nthQueue = "prod-example-com-nth"
	nthStore = "prod-example-com-state-store"
	bastions = "bastions." + cluster
	workers  = "nodes." + cluster
	foreign  = "x." + cluster // group x of prod.example.com by its name, and of another cluster by its tag
)

// nthWorld is an account and a cluster with kOps' node termination handler.
type nthWorld struct {
	*world
	groups *autoscaling.Client
	events *eventbridge.Client
}

// nthOf creates what kOps creates, as in its models: groups with hooks, rules, queue, Deployment and specification.
func nthOf(w *world, groups map[string]string) *nthWorld {
	w.Helper()
	n := &nthWorld{w, autoscaling.NewFromConfig(w.direct), eventbridge.NewFromConfig(w.direct)}
	ctx := w.Context()
	must(ec2.NewFromConfig(w.direct).CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("of-the-groups"),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-0123456789abcdef0")}}))
	for group, of := range groups {
		n.group(group, of)
		n.hook(group, strings.TrimSuffix(group, "."+cluster)+"-NTHLifecycleHook")
	}
	arn := "arn:aws:sqs:" + region + ":" + account + ":" + nthQueue
	must(sqs.NewFromConfig(w.direct).CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(nthQueue),
		Tags: map[string]string{"KubernetesCluster": cluster}}))
	for event, pattern := range map[string]string{"ASGLifecycle": `{"source":["aws.autoscaling"],"detail-type":["EC2 Instance-terminate Lifecycle Action"]}`,
		"SpotInterruption":    `{"source": ["aws.ec2"],"detail-type": ["EC2 Spot Instance Interruption Warning"]}`,
		"InstanceStateChange": `{"source": ["aws.ec2"],"detail-type": ["EC2 Instance State-change Notification"]}`,
		"InstanceScheduledChange": `{"source": ["aws.health"],"detail-type": ["AWS Health Event"],"detail": {"service": ["EC2"],` +
			`"eventTypeCategory": ["scheduledChange"]}}`} {
		rule := aws.String(cluster + "-" + event)
		must(n.events.PutRule(ctx, &eventbridge.PutRuleInput{Name: rule, EventPattern: &pattern,
			Tags: []ebtypes.Tag{{Key: aws.String("KubernetesCluster"), Value: aws.String(cluster)}}}))
		must(n.events.PutTargets(ctx, &eventbridge.PutTargetsInput{Rule: rule, Targets: []ebtypes.Target{{Id: aws.String("1"), Arn: &arn}}}))
	}
	labels := map[string]string{"k8s-app": nth}
	apps, pods := cp().Client().AppsV1().Deployments(kubeSystem), cp().Client().CoreV1().Pods(kubeSystem)
	must(apps.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: nth},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{SchedulerName: "none",
				Containers: []corev1.Container{{Name: nth, Image: "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25.5"}}}}}}, metav1.CreateOptions{}))
	eventually(w.T, "a ready replica of NTH", func() error { // without a scheduler and a kubelet
		for _, pod := range must(pods.List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=" + nth})).Items {
			_, err := pods.Patch(ctx, pod.Name, apitypes.StrategicMergePatchType, []byte(`{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`),
				metav1.PatchOptions{}, "status")
			if err != nil {
				return err
			}
		}
		if is := must(apps.Get(ctx, nth, metav1.GetOptions{})); is.Status.ReadyReplicas != 1 {
			return fmt.Errorf("%d are ready", is.Status.ReadyReplicas)
		}
		return nil
	})
	must(s3.NewFromConfig(w.direct).CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(nthStore),
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region}}))
	try(annotate(ctx, "s3://"+nthStore+"/"+cluster+"/addons/bootstrap-channel.yaml"))
	n.specify("config", "{}")
	n.specify("cluster-completed.spec", "{nodeTerminationHandler: {enabled: true}}")
	return n
}

// group creates an empty group of a cluster.
func (n *nthWorld) group(name, of string) {
	n.Helper()
	tags := []types.Tag{{Key: aws.String("KubernetesCluster"), Value: &of}}
	if name == bastions {
		tags = append(tags, types.Tag{Key: aws.String("k8s.io/role/bastion"), Value: aws.String("1")})
	}
	must(n.groups.CreateAutoScalingGroup(n.Context(), &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: aws.Int32(0),
		MaxSize: aws.Int32(1), AvailabilityZones: []string{region + "a"}, Tags: tags,
		LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateName: aws.String("of-the-groups")}}))
}

func (n *nthWorld) hook(group, hook string) {
	n.Helper()
	must(n.groups.PutLifecycleHook(n.Context(), &autoscaling.PutLifecycleHookInput{AutoScalingGroupName: &group, LifecycleHookName: &hook,
		LifecycleTransition: aws.String("autoscaling:EC2_INSTANCE_TERMINATING"), HeartbeatTimeout: aws.Int32(300), DefaultResult: aws.String("CONTINUE")}))
}

// specify writes a specification to the state store.
func (n *nthWorld) specify(file, spec string) {
	n.Helper()
	must(s3.NewFromConfig(n.direct).PutObject(n.Context(), &s3.PutObjectInput{Bucket: aws.String(nthStore), Key: aws.String(cluster + "/" + file),
		Body: strings.NewReader("metadata: {name: " + cluster + "}\nspec: " + spec + "\n")}))
}

// remove removes what is left, other than what kops-spot has created.
func (n *nthWorld) remove() {
	ctx := context.Background()
	for _, group := range []string{workers, bastions, foreign, "new." + cluster} {
		for _, hook := range n.hooks(group) {
			must(n.groups.DeleteLifecycleHook(ctx, &autoscaling.DeleteLifecycleHookInput{AutoScalingGroupName: &group, LifecycleHookName: &hook}))
		}
		_, _ = n.groups.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: &group, ForceDelete: aws.Bool(true)})
	}
	_, _ = ec2.NewFromConfig(n.direct).DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateName: aws.String("of-the-groups")})
	for _, rule := range must(n.events.ListRules(ctx, &eventbridge.ListRulesInput{NamePrefix: aws.String(cluster)})).Rules {
		n.removeRule(*rule.Name)
	}
	queues := sqs.NewFromConfig(n.direct)
	if url, err := queues.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(nthQueue)}); err == nil {
		must(queues.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: url.QueueUrl}))
	}
	_ = cp().Client().AppsV1().Deployments(kubeSystem).Delete(ctx, nth, metav1.DeleteOptions{})
	buckets := s3.NewFromConfig(n.direct)
	for _, file := range []string{"config", "cluster-completed.spec"} {
		must(buckets.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(nthStore), Key: aws.String(cluster + "/" + file)}))
	}
	must(buckets.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(nthStore)}))
	try(annotate(ctx, ""))
}

func (n *nthWorld) removeRule(name string) {
	_, _ = n.events.RemoveTargets(context.Background(), &eventbridge.RemoveTargetsInput{Rule: &name, Ids: []string{"1"}})
	must(n.events.DeleteRule(context.Background(), &eventbridge.DeleteRuleInput{Name: &name}))
}

func (n *nthWorld) hooks(group string) (hooks []string) {
	for _, h := range must(n.groups.DescribeLifecycleHooks(context.Background(), &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: &group})).LifecycleHooks {
		hooks = append(hooks, *h.LifecycleHookName)
	}
	slices.Sort(hooks)
	return hooks
}

// targets returns the targets of a rule, if it is enabled.
func (n *nthWorld) targets(rule string) (arns []string) {
	is, err := n.events.DescribeRule(n.Context(), &eventbridge.DescribeRuleInput{Name: &rule})
	if err != nil || is.State != ebtypes.RuleStateEnabled {
		return nil
	}
	for _, t := range must(n.events.ListTargetsByRule(n.Context(), &eventbridge.ListTargetsByRuleInput{Rule: &rule})).Targets {
		arns = append(arns, *t.Arn)
	}
	return arns
}

// unhandled returns the hooks of the cluster's groups that nobody completes, and the groups of nodes without a hook.
func (n *nthWorld) unhandled() (bad []string) {
	n.Helper()
	ctx := n.Context()
	_, deployment := cp().Client().AppsV1().Deployments(kubeSystem).Get(ctx, nth, metav1.GetOptions{})
	_, queue := sqs.NewFromConfig(n.direct).GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(nthQueue)})
	theirs := deployment == nil && queue == nil && slices.Contains(n.targets(cluster+"-ASGLifecycle"), "arn:aws:sqs:"+region+":"+account+":"+nthQueue)
	ours := false
	if rule := n.targets(names.RuleName(cluster, "lifecycle")); len(rule) == 1 {
		f := n.function(cluster)
		ours = rule[0] == *f.FunctionArn && slices.Contains(strings.Split(f.Environment.Variables["KOPS_SPOT_HOOKS"], ","), install.OurHook) &&
			f.Environment.Variables["KOPS_SPOT_MODE"] == "act"
	}
	for _, group := range []string{workers, bastions} {
		for _, hook := range n.hooks(group) {
			if hook == install.OurHook && !ours || strings.HasSuffix(hook, "-NTHLifecycleHook") && !theirs {
				bad = append(bad, hook+" of "+group)
			}
		}
	}
	if len(n.hooks(workers)) == 0 {
		bad = append(bad, workers)
	}
	return bad
}

// migrations runs the commands of docs/migrating-from-nth.md, each way from a cluster as kOps creates it.
func migrations(t *testing.T) {
	page := string(must(os.ReadFile(filepath.Join(template.Root(), "docs", "migrating-from-nth.md"))))
	yaml := regexp.MustCompile("(?s)```yaml\n.*?```")
	section := func(name string) string {
		_, text, _ := strings.Cut(page, "\n## "+name+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		return text
	}
	disable := section("Disable NTH in kOps")
	_, alpha2, _ := strings.Cut(disable, "kops.k8s.io/v1alpha2\nspec:\n")
	alpha2, _, _ = strings.Cut(alpha2, "```")
	// kops edits the specification as the page shows it, and no pod runs here. For SQS, version 1 of the AWS CLI ignores AWS_ENDPOINT_URL.
	prelude := `aws() {
		if [ "$1" = sqs ]; then set -- --endpoint-url "$AWS_ENDPOINT_URL" "$@"; fi
		command aws "$@"
	}
	kubectl() {
		if [ "$3" != rollout ]; then command kubectl "$@"; fi
	}
	kops() {
		local file=config
		if [ "$1" = update ]; then file=cluster-completed.spec; fi
		printf 'metadata: {name: ` + cluster + `}\nspec:\n%s' "` + alpha2 + `" | aws s3 cp --quiet - s3://` + nthStore + `/` + cluster + `/$file
	}
	`
	w := home(t)
	before := w.snapshot()
	var n *nthWorld
	for _, c := range []struct {
		text string
		left []string // hooks of the workers' group
	}{
		{section("Side by side"), []string{"nodes-NTHLifecycleHook"}},
		{disable + section("Spot only"), nil},
		{disable + section("Take over"), []string{install.OurHook}},
		{section("Back to NTH"), nil}, // after the take-over
	} {
		if n == nil {
			n = nthOf(w, map[string]string{workers: cluster, foreign: otherCluster})
		}
		if commands, lines := n.runs(prelude, yaml.ReplaceAllString(c.text, "")); commands < 2 || lines < 1 && c.text != section("Back to NTH") {
			t.Errorf("the page shows %d commands and %d lines", commands, lines)
		}
		if got := n.hooks(workers); !slices.Equal(got, c.left) {
			t.Errorf("the hooks are %q, want %q", got, c.left)
		}
		if got := n.hooks(foreign); !slices.Equal(got, []string{"x-NTHLifecycleHook"}) {
			t.Errorf("the hooks of another cluster's group are %q", got)
		}
		if slices.Equal(c.left, []string{install.OurHook}) {
			continue
		}
		n.remove()
		n = nil
	}
	w.quiet()
	w.mustRun("uninstall", "--yes")
	w.unchanged("after the migrations", before)
	t.Run("interrupted", func(t *testing.T) { takeOverInterrupted(t, w) })
}

// takeOverInterrupted: whichever write of a take-over a run ends at, each hook has somebody who completes it, and the
// next run continues.
func takeOverInterrupted(t *testing.T, w *world) {
	w = w.in(t)
	before := w.snapshot()
	n := nthOf(w, map[string]string{workers: cluster, bastions: cluster, foreign: otherCluster})
	defer func() {
		n.remove()
		w.unchanged("after the take-over", before)
	}()
	takeOver := installed("--yes", "--take-over-nth")
	for _, c := range []struct{ config, completed, says string }{
		{"{nodeTerminationHandler: {enabled: true}}", "{}", "config enables it: with kops edit cluster --name " + cluster + ", set spec.nodeTerminationHandler.enabled: false"},
		{"{}", "{}", "config does not disable it, and kOps 1.28 and later enable it by default"},
		{"{nodeTerminationHandler: {enabled: false}}", "{nodeTerminationHandler: {enabled: true}}", "not yet in the cluster: run kops update cluster --name " + cluster + " --yes"},
	} {
		n.specify("config", c.config)
		n.specify("cluster-completed.spec", c.completed)
		n.Reset()
		if _, stderr, err := n.command(takeOver...); err == nil || !strings.Contains(stderr, c.says) || len(n.Written()) > 0 {
			t.Errorf("%s: %v, wrote %q; want %q\n%s", c.config, err, n.Written(), c.says, stderr)
		}
	}
	n.specify("cluster-completed.spec", "{nodeTerminationHandler: {enabled: false}}")
	for _, c := range []struct {
		args []string
		says string
	}{
		{slices.Concat(takeOver, []string{"--set", "Mode=observe"}), "completes no lifecycle action: add --set Mode=act"},
		{slices.Concat(takeOver, []string{"--state", "s3://none"}), "set --state to the kOps state store"},
		{slices.Concat(takeOver, []string{"--export", t.TempDir()}), "--take-over-nth and --export cannot be used together"},
	} {
		if _, stderr, err := n.command(c.args...); err == nil || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.says, stderr)
		}
	}
	for _, event := range []string{"SpotInterruption", "InstanceStateChange", "InstanceScheduledChange"} { // one is enough
		n.removeRule(cluster + "-" + event)
	}
	want := []string{"cloudformation:ExecuteChangeSet", "autoscaling:PutLifecycleHook", "autoscaling:DeleteLifecycleHook",
		"autoscaling:DeleteLifecycleHook", "events:RemoveTargets", "events:DeleteRule", "sqs:DeleteQueue"}
	var lost []string
	for {
		action, stderr := n.interruptWrite(1, func(action string) bool { return slices.Contains(want, action) }, takeOver...)
		if bad := n.unhandled(); len(bad) > 0 {
			t.Errorf("after %q and %s, nobody completes %q", lost, action, bad)
		}
		if action == "" {
			break
		}
		if action == "autoscaling:PutLifecycleHook" { // the function is not ready
			rule := aws.String(names.RuleName(cluster, "spot-warning"))
			must(n.events.DisableRule(t.Context(), &eventbridge.DisableRuleInput{Name: rule}))
			_, stderr, err := n.command(takeOver...)
			if err == nil || !strings.Contains(stderr, "kOps' node termination handler was not removed, because the function is not ready: state: ") ||
				len(n.hooks(workers)) != 2 {
				t.Errorf("%v, the hooks are %q\n%s", err, n.hooks(workers), stderr)
			}
			must(n.events.EnableRule(t.Context(), &eventbridge.EnableRuleInput{Name: rule}))
		}
		if lost = append(lost, action); !strings.Contains(stderr, "run this again to continue") || len(lost) > 30 {
			t.Fatalf("interrupted at %q:\n%s", lost, stderr)
		}
	}
	if !slices.Equal(lost, want) {
		t.Errorf("interrupted at %q, want %q", lost, want)
	}
	n.group("new."+cluster, cluster)
	is, _, err := n.asJSON("check")
	if err != nil || !slices.ContainsFunc(is.Findings, func(f change.Finding) bool {
		return f.Level == change.Warn && strings.HasPrefix(f.Detail, "new."+cluster+": without the hook kops-spot")
	}) {
		t.Errorf("check does not name the new group: %v\n%s", err, show(is.Findings))
	}
	n.Reset()
	n.mustRun(takeOver...)
	if wrote := carried("install", n.Written()); !slices.Equal(wrote, []string{"autoscaling:PutLifecycleHook"}) {
		t.Errorf("for a new group, the take-over wrote %q", wrote)
	}
	if action, stderr := n.interruptWrite(1, func(action string) bool { return strings.HasPrefix(action, "autoscaling:") }, "uninstall", "--yes"); action !=
		"autoscaling:DeleteLifecycleHook" || n.targets(names.RuleName(cluster, "lifecycle")) == nil {
		t.Errorf("uninstall deleted the function before the hooks: %s\n%s", action, stderr)
	}
	rows := n.succeed("uninstall").Plan
	if first := rows[0]; first.Verb != change.Delete || first.Kind != "lifecycle hook" {
		t.Errorf("uninstall begins with %s", first.Row())
	}
	if got := n.hooks("new." + cluster); len(got) > 0 {
		t.Errorf("after uninstall, the hooks are %q", got)
	}
}
