package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/savings"
)

const cluster = "prod.example.com"

// source returns a source whose cluster has 501 pods and nothing else of which more than one page exists, and whose
// account has a group. denied are permissions that are missing.
func source(t *testing.T, denied ...string) (s Source, asked *[]string) {
	t.Helper()
	asked = new([]string)
	objects := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Split(r.URL.Path, "/")
		resource, q := path[len(path)-1], r.URL.Query()
		*asked = append(*asked, fmt.Sprintf("%s %s limit=%s continue=%s", r.Method, resource, q.Get("limit"), q.Get("continue")))
		w.Header().Set("Content-Type", "application/json")
		if slices.ContainsFunc(denied, func(d string) bool { return d == "list "+resource }) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no %s"}`, resource)
			return
		}
		list := map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{}}
		object := func(name string, labels map[string]string) map[string]any {
			return map[string]any{"kind": "X", "apiVersion": "v1", "metadata": map[string]any{"name": name, "labels": labels}}
		}
		switch {
		case resource == "nodes":
			list["items"] = []any{object("n1", map[string]string{corev1.LabelInstanceTypeStable: "m5.large", corev1.LabelTopologyZone: "eu-west-1a"}),
				object("m1", map[string]string{corev1.LabelInstanceTypeStable: "t3.medium", corev1.LabelTopologyZone: "eu-west-1a"}),
				object("k1", map[string]string{corev1.LabelInstanceTypeStable: "m5.large", "karpenter.sh/nodepool": "default"}),
				object("c1", map[string]string{corev1.LabelInstanceTypeStable: "m5.large", "provisioner.cast.ai/node-id": "1"}),
				object("joined", map[string]string{corev1.LabelInstanceTypeStable: "c5.large", corev1.LabelTopologyZone: "eu-west-1a"})}
		case resource == "pods" && q.Get("continue") == "":
			items := make([]any, 500)
			for i := range items {
				items[i] = object(fmt.Sprint("p", i), nil)
			}
			list["items"], list["metadata"] = items, map[string]any{"continue": "next"}
		case resource == "pods":
			list["items"] = []any{object("p500", nil)}
		default:
			list["items"] = []any{object(resource, nil)}
		}
		_ = json.NewEncoder(w).Encode(list)
	}))
	t.Cleanup(objects.Close)
	account := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		action := form.Get("Action")
		if action == "" {
			action = "GetProducts"
		}
		*asked = append(*asked, action+" "+strings.Join(append(form["Filter.1.Value.1"], form["Filter.1.Value.2"]...), " "))
		if slices.ContainsFunc(denied, func(d string) bool { return strings.HasSuffix(d, ":"+action) }) {
			if action == "GetProducts" {
				w.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
			}
			w.WriteHeader(http.StatusForbidden)
			const e = `<Error><Code>AccessDenied</Code><Message>no</Message></Error>`
			switch {
			case action == "GetProducts":
				_, _ = io.WriteString(w, `{"message":"no"}`)
			case strings.Contains(action, "AutoScaling"):
				_, _ = io.WriteString(w, `<ErrorResponse>`+e+`</ErrorResponse>`)
			default:
				_, _ = io.WriteString(w, `<Response><Errors>`+e+`</Errors></Response>`)
			}
			return
		}
		_, _ = io.WriteString(w, map[string]string{
			"DescribeAutoScalingGroups": `<R><DescribeAutoScalingGroupsResult><AutoScalingGroups>` + group("nodes."+cluster, cluster, "") +
				group("empty."+cluster, cluster, "") + group("control-plane."+cluster, cluster, "") + group("nodes."+cluster, "x."+cluster, "") + `</AutoScalingGroups></DescribeAutoScalingGroupsResult></R>`,
			"DescribeInstanceTypes": `<R><instanceTypeSet><item><instanceType>m5.large</instanceType><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo>` +
				`<memoryInfo><sizeInMiB>8192</sizeInMiB></memoryInfo></item></instanceTypeSet></R>`,
		}[action])
	}))
	t.Cleanup(account.Close)
	client, err := dynamic.NewForConfig(&rest.Config{Host: objects.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return Source{Cluster: client, Name: cluster, Nodes: map[string]NodeFacts{"n1": {Group: "nodes", Spot: true}, "m1": {Group: "control-plane", ControlPlane: true},
		"k1": {Group: "nodes", Spot: true}, "c1": {Group: "nodes", Spot: true}},
		Prices: &Prices{OnDemand: map[string]float64{"m5.large": 0.1}, Spot: map[string]map[string]float64{"m5.large": {"eu-west-1a": 0.04}}},
		AWS: awsadmin.New(aws.Config{Region: "eu-west-1", BaseEndpoint: &account.URL, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
			Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})}, asked
}

func group(name, of, overrides string) string {
	return `<member><AutoScalingGroupName>` + name + `</AutoScalingGroupName><AvailabilityZones><member>eu-west-1b</member></AvailabilityZones>` + overrides +
		`<Tags><member><Key>KubernetesCluster</Key><Value>` + of + `</Value></member></Tags></member>`
}

func TestRead(t *testing.T) {
	s, asked := source(t)
	all, found, err := s.Read(t.Context())
	if err != nil || found.Failed() {
		t.Fatal(err, found)
	}
	if len(all.Pods) != 501 || all.Pods[500].Name != "p500" || len(all.Budgets) != 1 || len(all.CSINodes) != 1 || len(all.Claims) != 1 ||
		len(all.Volumes) != 1 || len(all.DaemonSets) != 1 || len(all.Namespaces) != 1 {
		t.Errorf("got %d pods, %d budgets, %d CSINodes, %d claims, %d volumes, %d DaemonSets, %d namespaces", len(all.Pods), len(all.Budgets),
			len(all.CSINodes), len(all.Claims), len(all.Volumes), len(all.DaemonSets), len(all.Namespaces))
	}
	if n := all.Nodes; len(n) != 5 || n[0].Group != "nodes" || !n[0].Spot || n[0].ControlPlane || !n[1].ControlPlane ||
		n[2].Group != "" || !n[2].Spot || n[3].Group != "" || len(n[4].Labels) > 0 {
		t.Errorf("got the nodes %+v", n)
	}
	// A group of the cluster that has nodes, with the type of its nodes, since no policy names others.
	if want := []savings.Group{{Name: "nodes", Types: []string{"m5.large"}, Zones: []string{"eu-west-1b"}}}; !reflect.DeepEqual(all.Groups, want) {
		t.Errorf("got the groups %+v", all.Groups)
	}
	if len(all.Risks) != 1 || all.Risks[0].Group != "nodes" || all.Risks[0].Allows != "only 1 instance type and only 1 zone" {
		t.Errorf("got the risks %+v", all.Risks)
	}
	if want := map[string]savings.InstanceType{"m5.large": {VCPU: 2, Memory: 8 << 30, Pods: 0}}; !reflect.DeepEqual(all.Types, want) {
		t.Errorf("got the types %+v", all.Types)
	}
	if all.OnDemand["m5.large"] != 0.1 || all.Catalog.Spot[savings.Offer{Type: "m5.large", Zone: "eu-west-1a"}] != 0.04 {
		t.Errorf("got the prices %v, %v", all.OnDemand, all.Catalog.Spot)
	}
	text := strings.Join(*asked, "\n")
	for _, says := range []string{"GET pods limit=500 continue=\nGET pods limit=500 continue=next\n", "DescribeInstanceTypes m5.* t3.*"} {
		if !strings.Contains(text, says) {
			t.Errorf("%q is missing in\n%s", says, text)
		}
	}
	if strings.Contains(text, "Price") || strings.Contains(text, "GetProducts") || strings.Contains(text, "LifecycleHooks") {
		t.Errorf("with prices from a file, and no interest in hooks:\n%s", text)
	}
}

// TestDenied: one run names all permissions that are missing.
func TestDenied(t *testing.T) {
	missing := []string{"list pods", "list csinodes", "autoscaling:DescribeAutoScalingGroups", "ec2:DescribeInstanceTypes", "ec2:DescribeSpotPriceHistory",
		"pricing:GetProducts"}
	s, _ := source(t, missing...)
	s.Prices = nil
	all, found, err := s.Read(t.Context())
	if all != nil || !errors.Is(err, ErrDenied) {
		t.Errorf("got %v, %v", all, err)
	}
	var names, granted []string
	for _, f := range found {
		if granted = append(granted, f.Name); f.Level == "fail" {
			names = append(names, strings.TrimSuffix(f.Name, ".storage.k8s.io"))
		}
	}
	if !slices.Equal(names, missing) {
		t.Errorf("got %q, want %q: %+v", names, missing, found)
	}
	if !slices.Equal(granted, s.Permissions()[2:]) {
		t.Errorf("checked %q; shown %q", granted, s.Permissions())
	}
}

func TestFamilies(t *testing.T) {
	node := func(kind, zone string) savings.Node {
		return savings.Node{Node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelInstanceTypeStable: kind, corev1.LabelTopologyZone: zone}}}}
	}
	all := Inventory{Cluster: savings.Cluster{Nodes: []savings.Node{node("m5.large", "b"), node("m5.xlarge", "a"), node("", "")},
		Groups: []savings.Group{{Types: []string{"c5.large", "m5.large"}, Zones: []string{"c", "a"}}}}}
	if got := all.families(); !slices.Equal(got, []string{"c5.*", "m5.*"}) {
		t.Errorf("got the families %q", got)
	}
	if got := all.zones(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got the zones %q", got)
	}
}

func TestParsePrices(t *testing.T) {
	good := "sample: true\non_demand: {m5.large: 0.107}\nspot:\n  m5.large: {eu-west-1a: 0.043}\n"
	want := &Prices{true, map[string]float64{"m5.large": 0.107}, map[string]map[string]float64{"m5.large": {"eu-west-1a": 0.043}}}
	for _, text := range []string{good, `{"sample": true, "on_demand": {"m5.large": 0.107}, "spot": {"m5.large": {"eu-west-1a": 0.043}}}`} {
		if got, err := parsePrices([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty":             {"", "EOF"},
		"no prices":         {"sample: true", "on_demand is empty"},
		"unknown field":     {good + "currency: USD\n", "field currency not found"},
		"twice":             {good + "sample: false\n", "already defined"},
		"type twice":        {"on_demand:\n  m5.large: 1\n  m5.large: 2\n", "already defined"},
		"another document":  {good + "---\n" + good, "more than one document"},
		"text":              {"on_demand: {m5.large: cheap}", "cannot unmarshal"},
		"zero":              {"on_demand: {m5.large: 0}", "the on-demand price of m5.large is 0"},
		"not a number":      {"on_demand: {m5.large: .nan}", "is NaN"},
		"infinite":          {"on_demand: {m5.large: .inf}", "is +Inf"},
		"negative Spot":     {"on_demand: {m5.large: 1}\nspot: {m5.large: {a: -1}}", "the Spot price of m5.large in a is -1"},
		"Spot without zone": {"on_demand: {m5.large: 1}\nspot: {m5.large: 1}", "cannot unmarshal"},
	} {
		if _, err := parsePrices([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
	if _, err := ReadPrices("missing.yaml"); err == nil || !strings.Contains(err.Error(), "choose another --prices") {
		t.Error(err)
	}
}
