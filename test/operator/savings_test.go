package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	"github.com/castai/kops-spot/test/testenv"
)

// samplePrices has m5 for 5 cents per core and hour, m5a for 4, and Spot at a third of that in zone a and at half in b.
var samplePrices = func() fakeaws.Prices {
	p := fakeaws.Prices{OnDemand: map[string]float64{}, Spot: map[string]map[string]float64{}}
	for size, cores := range coresOf {
		for family, price := range map[string]float64{"m5": 0.05, "m5a": 0.04} {
			name, hourly := family+"."+size, price*float64(cores)
			p.OnDemand[name] = hourly
			p.Spot[name] = map[string]float64{region + "a": hourly / 3, region + "b": hourly / 2}
		}
	}
	return p
}()

var coresOf = map[string]int{"large": 2, "xlarge": 4, "2xlarge": 8}

const savingsSpace = "savings"

// savingsWorld is a cluster with a control-plane node, four on-demand nodes in a group and two Spot nodes in another,
// and a user who may only read.
type savingsWorld struct {
	*world
	environ []string
}

func newSavingsWorld(t *testing.T) *savingsWorld {
	w := &savingsWorld{world: home(t)}
	ctx, core := t.Context(), cp().Client().CoreV1()
	groups, machines := autoscaling.NewFromConfig(w.direct), ec2.NewFromConfig(w.direct)
	must(machines.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("of-savings"),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-0123456789abcdef0")}}))
	template := &types.LaunchTemplateSpecification{LaunchTemplateName: aws.String("of-savings")}
	subnet := must(machines.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{homeWorker}})).Reservations[0].Instances[0].SubnetId
	var ids []string
	var nodes []testenv.Node
	for _, g := range []struct {
		name, kind, zone, role string
		types                  []string // of a mixed instances policy
		cores                  int64
		nodes                  int
		spot                   bool
	}{
		{"control-plane-a", "m5.large", region + "a", "control-plane", nil, 2, 1, false},
		{"nodes-a", "m5.xlarge", region + "a", "", []string{"m5.xlarge", "m5a.xlarge"}, 4, 4, false},
		{"spot-b", "m5.2xlarge", region + "b", "", nil, 8, 2, true},
	} {
		in := &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: aws.String(g.name + "." + cluster), MinSize: aws.Int32(0), MaxSize: aws.Int32(9),
			AvailabilityZones: []string{g.zone}, Tags: []types.Tag{{Key: aws.String("KubernetesCluster"), Value: aws.String(cluster)},
				{Key: aws.String("kops.k8s.io/instancegroup"), Value: &g.name}}, LaunchTemplate: template}
		if g.types != nil {
			in.LaunchTemplate, in.MixedInstancesPolicy = nil, &types.MixedInstancesPolicy{LaunchTemplate: &types.LaunchTemplate{LaunchTemplateSpecification: template}}
			for _, name := range g.types {
				in.MixedInstancesPolicy.LaunchTemplate.Overrides = append(in.MixedInstancesPolicy.LaunchTemplate.Overrides, types.LaunchTemplateOverrides{InstanceType: &name})
			}
		}
		must(groups.CreateAutoScalingGroup(ctx, in))
		for range g.nodes {
			run := &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SubnetId: subnet,
				TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{
					{Key: aws.String("KubernetesCluster"), Value: aws.String(cluster)}, {Key: aws.String("kops.k8s.io/instancegroup"), Value: &g.name}}}}}
			if g.spot {
				run.InstanceMarketOptions = &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}
			}
			id := *must(machines.RunInstances(ctx, run)).Instances[0].InstanceId
			ids = append(ids, id)
			node := testenv.Node{InstanceID: id, Zone: g.zone, InstanceGroup: g.name, InstanceType: g.kind, CPU: g.cores, Labels: map[string]string{"savings": g.name}}
			if g.role != "" {
				key := "node-role.kubernetes.io/" + g.role
				node.Labels[key], node.Taints = "", []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}}
			}
			nodes = append(nodes, node)
		}
	}
	try(cp().CreateNodes(ctx, nodes...))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		try(core.Namespaces().Delete(ctx, savingsSpace, metav1.DeleteOptions{}))
		rbac := cp().Client().RbacV1()
		try(errors.Join(rbac.ClusterRoleBindings().Delete(ctx, "kops-spot-savings", metav1.DeleteOptions{}),
			rbac.ClusterRoles().Delete(ctx, "kops-spot-savings", metav1.DeleteOptions{})))
		try(core.Pods(savingsSpace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: aws.Int64(0)}, metav1.ListOptions{}))
		for _, id := range ids {
			try(deleteNode(id))
		}
		must(machines.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}))
		for _, g := range must(groups.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})).AutoScalingGroups {
			must(groups.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: g.AutoScalingGroupName, ForceDelete: aws.Bool(true)}))
		}
		must(machines.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateName: aws.String("of-savings")}))
	})
	try(cp().Apply(ctx, []byte(savingsObjects)))
	try(cp().Apply(ctx, []byte(documentedRole())))
	try(cp().Apply(ctx, []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kops-spot-savings}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kops-spot-savings}
subjects: [{kind: ServiceAccount, name: reader, namespace: savings}]
`)))
	eventually(t, "all pods run", func() error {
		pods := must(core.Pods(savingsSpace).List(ctx, metav1.ListOptions{})).Items
		for _, p := range pods {
			if p.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("%s is %s", p.Name, p.Status.Phase)
			}
		}
		if want := 9 + 7 + 1 + len(ids) + 1; len(pods) < want { // home has a node, too
			return fmt.Errorf("%d pods of %d", len(pods), want)
		}
		return nil
	})
	w.environ = []string{"KUBECONFIG=" + w.readerKubeconfig()}
	return w
}

// prices responds to requests for prices.
func (w *savingsWorld) prices(action string, form url.Values) *testenv.Answer {
	switch action {
	case "pricing:GetProducts":
		return &testenv.Answer{Status: http.StatusOK, Body: samplePrices.Products()}
	case "ec2:DescribeSpotPriceHistory":
		body, ok := samplePrices.SpotHistory(form)
		if !ok {
			w.Errorf("unexpected request for Spot prices: %v", form)
		}
		return &testenv.Answer{Status: http.StatusOK, Body: body}
	}
	return nil
}

const savingsObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: savings}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: savings}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: savings}
spec:
  replicas: 9
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {savings: nodes-a}
      containers: [{name: web, image: web, resources: {requests: {cpu: 500m, memory: 1Gi}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: single, namespace: savings}
spec:
  selector: {matchLabels: {app: single}}
  template:
    metadata: {labels: {app: single}}
    spec:
      nodeSelector: {savings: nodes-a}
      containers: [{name: single, image: single, resources: {requests: {cpu: 250m, memory: 1Gi}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: single, namespace: savings}
spec: {minAvailable: 1, selector: {matchLabels: {app: single}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, namespace: savings}
spec:
  replicas: 7
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      nodeSelector: {savings: spot-b}
      containers: [{name: worker, image: worker, resources: {requests: {cpu: "1", memory: 1Gi}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: savings}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: agent, image: agent, resources: {requests: {cpu: 100m, memory: 64Mi}}}]
`

// documentedRole returns the ClusterRole of docs/savings.md.
func documentedRole() string {
	_, role, _ := strings.Cut(string(must(os.ReadFile("../../docs/savings.md"))), "```yaml\n")
	role, _, _ = strings.Cut(role, "```")
	return role
}

// readerKubeconfig returns the kubeconfig of a user with the ClusterRole of the documentation and nothing else.
func (w *savingsWorld) readerKubeconfig() string {
	w.Helper()
	cfg := must(clientcmd.LoadFromFile(cp().Kubeconfig()))
	user := cfg.Contexts[cfg.CurrentContext].AuthInfo
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: must(cp().ServiceAccountToken(w.Context(), savingsSpace, "reader", 10*time.Minute))}
	path := filepath.Join(w.TempDir(), "reader.kubeconfig")
	try(clientcmd.WriteToFile(*cfg, path))
	return path
}

// fleet and the others are the JSON output.
type fleet struct {
	Monthly  float64
	Machines int
	Rows     []struct {
		Group, Type, Zone string
		Spot              bool
		Count             int
		Hourly            float64
	}
	Bound   float64
	Reasons []struct {
		Text     string
		Subjects []string
	}
}

type savingsOutput struct {
	Prices struct {
		Source string
		Sample bool
	}
	Now, Spot, Packed, Resized fleet
	Risks                      []struct{ Group, Allows string }
	Assumptions                []string
}

func (w *savingsWorld) run(args ...string) (stdout, stderr string, err error) {
	w.Helper()
	return w.commandWith(w.environ, append([]string{"savings"}, args...)...)
}

func (w *savingsWorld) mustRun(args ...string) (stdout, stderr string) {
	w.Helper()
	stdout, stderr, err := w.run(args...)
	if err != nil {
		w.Fatalf("kops-spot savings %q: %v\n%s%s", args, err, stdout, stderr)
	}
	return stdout, stderr
}

// estimates: the command reads the cluster and the account with nothing but get and list, and its numbers are right.
func estimates(t *testing.T) {
	w := newSavingsWorld(t)
	page := filepath.Join(t.TempDir(), "savings.html")

	w.Answers(first(w.prices, func(action string, _ url.Values) *testenv.Answer {
		const no = "<Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error>"
		return map[string]*testenv.Answer{"autoscaling:DescribeAutoScalingGroups": awsError(http.StatusForbidden, "AccessDenied", "no"),
			"ec2:DescribeInstanceTypes": {Status: http.StatusForbidden, Body: "<Response><Errors>" + no + "</Errors></Response>"}}[action]
	}))
	_, stderr, err := w.run("--html", page)
	if _, left := os.Stat(page); err == nil || !os.IsNotExist(left) || !strings.Contains(stderr, "allow autoscaling:DescribeAutoScalingGroups") ||
		!strings.Contains(stderr, "allow ec2:DescribeInstanceTypes") || !strings.Contains(stderr, "\n✔ list pods ") {
		t.Errorf("without permissions: %v, %v\n%s", err, left, stderr)
	}
	w.Answers(w.prices)

	stdout, _ := w.mustRun("--html", page, "--output", "json")
	var is savingsOutput
	try(json.Unmarshal([]byte(stdout), &is))
	if !is.Prices.Sample || is.Prices.Source != w.URL || len(is.Assumptions) == 0 {
		t.Errorf("got the prices %+v and the assumptions %q", is.Prices, is.Assumptions)
	}
	w.reconcile(is)
	if said := fmt.Sprint(is.Risks); said != "[{nodes-a only 2 instance types and only 1 zone} {spot-b only 1 instance type and only 1 zone}]" {
		t.Errorf("got the risks %s", said)
	}

	table, _ := w.mustRun()
	rows := map[string][]string{}
	for line := range strings.SplitSeq(table, "\n") {
		if cells := strings.Fields(line); len(cells) > 4 {
			name := len(cells) - 4
			rows[strings.Join(cells[:name], " ")] = cells[name:]
		}
	}
	for i, f := range []fleet{is.Now, is.Spot, is.Packed, is.Resized} {
		amounts, machines := rows["per month"], rows["machines"]
		if len(amounts) != 4 || len(machines) != 4 {
			t.Fatalf("got %q and %q in\n%s", amounts, machines, table)
		}
		shown, err := strconv.ParseFloat(strings.NewReplacer("$", "", ",", "").Replace(amounts[i]), 64)
		if err != nil || math.Abs(shown-f.Monthly) > 0.00501 || machines[i] != strconv.Itoa(f.Machines) {
			t.Errorf("the table has %s for %s machines, and JSON %g for %d", amounts[i], machines[i], f.Monthly, f.Machines)
		}
		if text := string(must(os.ReadFile(page))); !strings.Contains(text, "<td>"+amounts[i]+"</td>") || strings.Count(text, "</svg>") != 2 ||
			!strings.Contains(text, "Sample prices from "+w.URL) {
			t.Errorf("the page does not have %s, two charts and a notice:\n%s", amounts[i], text)
		}
	}
	if !strings.Contains(table, "\n! Sample prices from "+w.URL+": the amounts are not real\n") {
		t.Errorf("the samples are not marked in\n%s", table)
	}

	called := w.Called()
	var policy struct{ Statement []struct{ Action []string } }
	try(json.Unmarshal(must(os.ReadFile("../../iam/savings.json")), &policy))
	slices.Sort(called)
	called = slices.DeleteFunc(slices.Compact(called), func(action string) bool { return action == "sts:GetCallerIdentity" })
	if allowed := slices.Sorted(slices.Values(policy.Statement[0].Action)); !slices.Equal(called, allowed) {
		t.Errorf("called %q; iam/savings.json allows %q", called, allowed)
	}

	// The same prices from a file.
	w.Reset()
	file := filepath.Join(t.TempDir(), "prices.json")
	try(os.WriteFile(file, must(json.Marshal(map[string]any{"on_demand": samplePrices.OnDemand, "spot": samplePrices.Spot})), 0o600))
	stdout, _ = w.mustRun("--prices", file, "--output", "json")
	var again savingsOutput
	try(json.Unmarshal([]byte(stdout), &again))
	if again.Prices.Sample || again.Prices.Source != file || math.Abs(again.Resized.Monthly-is.Resized.Monthly) > 0.01 {
		t.Errorf("with a file: got %+v and %g; want %g", again.Prices, again.Resized.Monthly, is.Resized.Monthly)
	}
	if called := strings.Join(w.Called(), " "); strings.Contains(called, "pricing:") || strings.Contains(called, "SpotPrice") {
		t.Errorf("with a file, it called %s", called)
	}
	w.onlyReads()
}

// reconcile computes the totals from the API server's objects and the prices, independently of the command.
func (w *savingsWorld) reconcile(is savingsOutput) {
	w.Helper()
	near := func(what string, got, want float64) {
		w.Helper()
		if math.Abs(got-want) > 0.001 {
			w.Errorf("%s: got %g, want %g", what, got, want)
		}
	}
	core := cp().Client().CoreV1()
	pods := must(core.Pods(savingsSpace).List(w.Context(), metav1.ListOptions{})).Items
	single := pods[slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Labels["app"] == "single" })]
	now, onSpot, nodes := 0.0, 0.0, must(core.Nodes().List(w.Context(), metav1.ListOptions{})).Items
	for _, n := range nodes {
		kind, zone := n.Labels[corev1.LabelInstanceTypeStable], n.Labels[corev1.LabelTopologyZone]
		onDemand, spot := samplePrices.OnDemand[kind], samplePrices.Spot[kind][zone]
		switch n.Labels["savings"] {
		case "control-plane-a":
			now, onSpot = now+onDemand, onSpot+onDemand
		case "nodes-a":
			now += onDemand
			if n.Name == single.Spec.NodeName {
				spot = onDemand
			}
			onSpot += spot
		default:
			now, onSpot = now+spot, onSpot+spot
		}
	}
	near("now", is.Now.Monthly, now*730)
	near("Spot", is.Spot.Monthly, onSpot*730)
	if is.Now.Machines != len(nodes) || is.Spot.Machines != len(nodes) {
		w.Errorf("%d and %d machines of %d nodes", is.Now.Machines, is.Spot.Machines, len(nodes))
	}
	if !(is.Resized.Monthly <= is.Packed.Monthly && is.Packed.Monthly < is.Spot.Monthly && is.Spot.Monthly < is.Now.Monthly) {
		w.Errorf("the estimates do not fall: %g, %g, %g, %g", is.Now.Monthly, is.Spot.Monthly, is.Packed.Monthly, is.Resized.Monthly)
	}
	for name, f := range map[string]fleet{"now": is.Now, "Spot": is.Spot, "packed": is.Packed, "resized": is.Resized} {
		sum, machines, cores := 0.0, 0, map[string]float64{}
		for _, r := range f.Rows {
			hourly := samplePrices.OnDemand[r.Type]
			if r.Spot {
				hourly = samplePrices.Spot[r.Type][r.Zone]
			}
			near(name+": price of "+r.Type, r.Hourly, hourly)
			_, size, _ := strings.Cut(r.Type, ".")
			sum, machines = sum+hourly*float64(r.Count)*730, machines+r.Count
			cores[r.Group] += float64(r.Count) * (float64(coresOf[size]) - 0.1) // without the DaemonSet's
			if r.Group == "control-plane-a" && r.Spot {
				w.Errorf("%s: the control plane is on Spot", name)
			}
		}
		near(name+": sum", f.Monthly, sum)
		if f.Machines != machines || f.Bound > f.Monthly+0.001 {
			w.Errorf("%s: %d machines in %d rows, bound %g of %g", name, f.Machines, machines, f.Bound, f.Monthly)
		}
		for group, need := range map[string]float64{"nodes-a": 9*0.5 + 0.25, "spot-b": 7} {
			if cores[group] < need {
				w.Errorf("%s: group %s has %g cores for %g", name, group, cores[group], need)
			}
		}
		onDemand := func(group string) bool {
			for _, r := range f.Rows {
				if r.Group == group && !r.Spot {
					return true
				}
			}
			return false
		}
		if !onDemand("nodes-a") || onDemand("spot-b") {
			w.Errorf("%s: the only replica is not on demand, or a Spot group is: %+v", name, f.Rows)
		}
	}
	found := false
	for _, r := range is.Packed.Reasons {
		found = found || slices.Contains(r.Subjects, savingsSpace+"/"+single.Name)
	}
	if !found {
		w.Errorf("no reason names the only replica: %+v", is.Packed.Reasons)
	}
}

// onlyReads checks the API server's audit log: the user got and listed what the documentation says, and did nothing else.
func (w *savingsWorld) onlyReads() {
	w.Helper()
	done := map[string]bool{}
	for _, r := range must(cp().AuditLog()) {
		if r.User == "system:serviceaccount:"+savingsSpace+":reader" {
			done[strings.TrimSuffix(r.Verb+" "+r.Resource+"."+r.Group, ".")] = true
			if r.Verb != "get" && r.Verb != "list" || r.Forbidden {
				w.Errorf("the command sent %+v", r)
			}
		}
	}
	want := []string{"get namespaces", "list csinodes.storage.k8s.io", "list daemonsets.apps", "list namespaces", "list nodes", "list persistentvolumeclaims",
		"list persistentvolumes", "list poddisruptionbudgets.policy", "list pods"}
	if got := slices.Sorted(maps.Keys(done)); !slices.Equal(got, want) {
		w.Errorf("the command sent %q, want %q", got, want)
	}
}
