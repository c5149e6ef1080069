package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

// commands are the additional commands of the transcripts. The last two print to stdout, for cmp and stdout.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"addons":    command(1, "addons <channel>", addons),
	"node":      command(2, "node <name> <instance id>", node),
	"stranger":  command(2, "stranger <name> <provider id, or none>", stranger),
	"pods":      command(2, "pods <namespace> <how many are to run> [manifest]", pods),
	"podname":   command(3, "podname <variable> <namespace> <app>", podName),
	"interrupt": command(2, "interrupt <node> <deadline: a time, or how far from now> [event]", interrupt),
	"patch":     command(2, "patch <node> <merge patch>", patch),
	"aws-login": command(0, "aws-login", awsLogin),
	"instance":  command(2, "instance <id> <tag=value>", tagInstance),
	"suspend":   command(2, "suspend <group> <process>", suspend),

	"state": command(1, "state <node>", state),
	"tidy":  command(1, "tidy <stdout, stderr or a file>", tidy),
}

func command(args int, usage string, run func(ts *testscript.TestScript, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, given []string) {
		if neg || len(given) < args {
			ts.Fatalf("usage: %s", usage)
		}
		if err := run(ts, given); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

func addons(_ *testscript.TestScript, args []string) error {
	return annotate(context.Background(), args[0])
}

// annotate sets the channel from which kOps installed its addons, or removes it if empty.
func annotate(ctx context.Context, channel string) error {
	annotations := map[string]any{"addons.k8s.io/networking.cilium.io": nil}
	if channel != "" {
		annotations["addons.k8s.io/networking.cilium.io"] = fmt.Sprintf(`{"version":"9.99.0","channel":%q,"id":"k8s-1.16","manifestHash":"f00"}`, channel)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = cp().Client().CoreV1().Namespaces().Patch(ctx, metav1.NamespaceSystem, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// node creates a node and its instance in the group <node>.<cluster>.
func node(ts *testscript.TestScript, args []string) error {
	ts.Defer(func() { try(deleteNode(args[0])) })
	simulated().AddGroup(spottest.Group{Name: "nodes-" + args[1] + "." + cluster, Min: 1, Max: 1, Desired: 1, Spot: true,
		Tags: map[string]string{spot.TagCluster: cluster}}, spottest.Instance{ID: args[1], Zone: region + "a", Spot: true})
	return cp().CreateNodes(context.Background(), testenv.Node{Name: args[0], InstanceID: args[1], Zone: region + "a"})
}

func deleteNode(name string) error {
	return cp().Client().CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})
}

// stranger creates a node with another provider ID, or without one.
func stranger(ts *testscript.TestScript, args []string) error {
	ts.Defer(func() { try(deleteNode(args[0])) })
	n := testenv.Node{Name: args[0], InstanceID: "none", Zone: region + "a"}.Object()
	n.Spec.ProviderID = args[1]
	if args[1] == "none" {
		n.Spec.ProviderID = ""
	}
	_, err := cp().Client().CoreV1().Nodes().Create(context.Background(), n, metav1.CreateOptions{})
	return err
}

// pods creates the namespace if necessary, applies a manifest and waits for a number of running pods.
func pods(ts *testscript.TestScript, args []string) error {
	ctx := context.Background()
	want, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if len(args) > 2 {
		if err := cp().CreateNamespace(ctx, args[0]); err != nil {
			return err
		}
		ts.Defer(func() {
			try(cp().Client().CoreV1().Namespaces().Delete(ctx, args[0], metav1.DeleteOptions{}))
		})
		manifest := ts.ReadFile(args[2])
		for _, name := range []string{"NODE", "OTHER"} {
			manifest = strings.ReplaceAll(manifest, "$"+name, ts.Getenv(name))
		}
		if err := cp().Apply(ctx, []byte(manifest)); err != nil {
			return err
		}
	}
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		all, err := cp().Client().CoreV1().Pods(args[0]).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		running := 0
		for _, p := range all.Items {
			if p.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		return running == want, nil
	})
}

// podName sets a variable to the name of the only pod of an app.
func podName(ts *testscript.TestScript, args []string) error {
	all, err := cp().Client().CoreV1().Pods(args[1]).List(context.Background(), metav1.ListOptions{LabelSelector: "app=" + args[2]})
	if err != nil || len(all.Items) != 1 {
		return fmt.Errorf("%d pods of %s: %w", len(all.Items), args[2], err)
	}
	ts.Setenv(args[0], all.Items[0].Name)
	return nil
}

// interrupt cordons a node, as the function does for a warning.
func interrupt(_ *testscript.TestScript, args []string) error {
	ctx := context.Background()
	deadline, err := time.Parse(time.RFC3339, args[1])
	if ahead, aheadErr := time.ParseDuration(args[1]); aheadErr == nil {
		deadline, err = time.Now().Add(ahead), nil
	}
	if err != nil {
		return err
	}
	in := spot.Interruption{EventID: "7a1d2f0c", Kind: spot.SpotTerminate, Time: deadline.Add(-2 * time.Minute)}
	if len(args) > 2 {
		in.EventID = args[2]
	}
	login := cp().AdminConfig()
	login.UserAgent = "kops-spot/test"
	function := must(kube.New(login))
	n, err := function.NodeNamed(ctx, args[0])
	if err != nil {
		return err
	}
	_, err = function.ChangeNode(ctx, n, func(n spot.Node) spot.Node { return spot.Cordon(n, in, spot.Plan{Deadline: deadline, Drain: true}) })
	return err
}

func patch(_ *testscript.TestScript, args []string) error {
	_, err := cp().Client().CoreV1().Nodes().Patch(context.Background(), args[0], types.MergePatchType, []byte(args[1]), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	return err
}

func awsLogin(ts *testscript.TestScript, _ []string) error {
	for name, value := range awsEnv() {
		ts.Setenv(name, value)
	}
	return nil
}

func tagInstance(_ *testscript.TestScript, args []string) error {
	key, value, _ := strings.Cut(args[1], "=")
	return simulated().CreateTags(context.Background(), []string{args[0]}, map[string]string{key: value})
}

func suspend(_ *testscript.TestScript, args []string) error {
	simulated().SetGroup(args[0], func(g *spottest.Group) { g.Suspended = append(g.Suspended, args[1]) })
	return nil
}

// state prints the fields of a node that a cordon or a restore may change.
func state(ts *testscript.TestScript, args []string) error {
	n, err := cp().Client().CoreV1().Nodes().Get(context.Background(), args[0], metav1.GetOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(ts.Stdout(), "unschedulable %t\n", n.Spec.Unschedulable)
	for _, t := range n.Spec.Taints {
		fmt.Fprintf(ts.Stdout(), "taint %s\n", t.ToString())
	}
	made := testenv.Node{Name: args[0], Zone: region + "a"}.Object() // what a node has from its beginning
	for _, of := range []struct {
		what      string
		all, made map[string]string
	}{{"label", n.Labels, made.Labels}, {"annotation", n.Annotations, made.Annotations}} {
		for _, key := range slices.Sorted(maps.Keys(of.all)) {
			if _, always := of.made[key]; !always {
				fmt.Fprintf(ts.Stdout(), "%s %s=%s\n", of.what, key, of.all[key])
			}
		}
	}
	return nil
}

// variable are the values that differ between runs, and their placeholders.
var variable = []struct {
	pattern *regexp.Regexp
	tidied  string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<time>"},
	{regexp.MustCompile(`(passed|in) (\d+h)?(\d+m)?\d+s`), "$1 <long>"},
	{regexp.MustCompile(`\bagent-[a-z0-9]{5}\b`), "agent-<pod>"}, // as wide as it was
	{regexp.MustCompile(`"(started|finished)": [\d.]+`), `"$1": <moment>`},
}

// tidy prints a text with placeholders.
func tidy(ts *testscript.TestScript, args []string) error {
	text := ts.ReadFile(args[0])
	for _, v := range variable {
		text = v.pattern.ReplaceAllString(text, v.tidied)
	}
	_, err := fmt.Fprint(ts.Stdout(), text)
	return err
}
