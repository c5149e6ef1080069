package install

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// documents are objects of a bucket, by path.
type documents map[string]string

func (d documents) Do(r *http.Request) (*http.Response, error) {
	text, status := d[strings.TrimPrefix(r.URL.Path, "/")], http.StatusOK
	switch text {
	case "":
		text, status = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", http.StatusNotFound
	case "denied":
		text, status = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>", http.StatusForbidden
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}, Request: r}, nil
}

// TestShutdown: the windows of all instance groups are read from the state store, else from a kubelet of each group, and
// compared with the setting.
func TestShutdown(t *testing.T) {
	const (
		name       = "metadata: {name: prod.example.com}\n"
		byDefault  = name + "spec: {kubelet: {shutdownGracePeriod: 30s, shutdownGracePeriodCriticalPods: 10s}}"
		amazonVPC  = name + "spec: {networking: {amazonvpc: {}}, kubelet: {shutdownGracePeriod: 0s, shutdownGracePeriodCriticalPods: 0s}}"
		file       = "kops/prod.example.com/" + specification
		group      = "kops/prod.example.com/instancegroup/"
		plain      = "metadata: {name: any}\nspec: {role: Node}"
		unverified = "not verified on AWS: that the shutdown begins at the deadline and not earlier"
		would      = "with spec.kubelet.shutdownGracePeriod: 30s and shutdownGracePeriodCriticalPods: 10s, pods that still run then would get SIGTERM and 20 s"
	)
	override := func(period string) string { return "spec: {kubelet: {shutdownGracePeriod: " + period + "}}" }
	configz := func(more string) string { return `{"kubeletconfig": {"nodeStatusUpdateFrequency": "10s"` + more + `}}` }
	two := []Worker{{Node: "i-1", Group: "nodes", OS: "Ubuntu 24.04 LTS", Ready: true, Spot: true}, {Node: "i-2", Group: "batch", OS: "Flatcar", Ready: true}}
	one := two[:1]
	for name, c := range map[string]struct {
		workers  []Worker
		store    documents
		kubelets map[string]string // by node
		setting  string
		want     change.Level
		says     []string // in the detail or the advice
		without  string
	}{
		"by default": {workers: one, store: documents{file: byDefault, group + "nodes": plain}, want: change.OK,
			says: []string{"gives ordinary pods 20 s in nodes (state store)", "with ShutdownGrace=20s, a pod whose budget refuses", unverified}},
		"relied on": {workers: one, store: documents{file: byDefault, group + "nodes": plain}, setting: "20s", want: change.OK, says: []string{"20 s in nodes"}, without: "ShutdownGrace"},
		"relied on, and rolled out": {workers: one, store: documents{file: byDefault, group + "nodes": plain}, kubelets: map[string]string{"i-1": configz(`, "shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"`)},
			setting: "20s", want: change.OK, says: []string{"20 s in nodes (state store)"}, without: "rolled out"},
		"relied on before it is rolled out": {workers: one, store: documents{file: byDefault, group + "nodes": plain}, kubelets: map[string]string{"i-1": configz("")}, setting: "20s", want: change.Fail,
			says: []string{"ShutdownGrace=20s is too long for nodes", "0 s in nodes (kubelet of i-1)", "the update of nodes is not yet rolled out"}},
		"a shorter one is not yet rolled out": {workers: two[1:], store: documents{file: byDefault, group + "batch": plain}, kubelets: map[string]string{"i-2": configz(`, "shutdownGracePeriod": "90s"`)},
			setting: "20s", want: change.Warn, says: []string{"20 s in batch (state store)", "the update of batch is not yet rolled out", "kops rolling-update cluster"}},
		"what the user has specified": {workers: one, store: documents{file: "denied", "kops/prod.example.com/config": name + "spec: {networking: {amazonvpc: {}}}", group + "nodes": plain},
			kubelets: map[string]string{"i-1": configz("")}, want: change.OK, says: []string{"0 s in nodes (kubelet of i-1)", "with amazonvpc"}},
		"shorter":     {workers: one, store: documents{file: byDefault, group + "nodes": plain}, setting: "15s", want: change.OK, says: []string{"ShutdownGrace=20s", unverified}},
		"longer":      {workers: one, store: documents{file: byDefault, group + "nodes": plain}, setting: "21s", want: change.Fail, says: []string{"ShutdownGrace=21s is too long for nodes: pods would be killed before it ends", "kops-spot install --set ShutdownGrace=20s"}},
		"amazonvpc":   {workers: one, store: documents{file: amazonVPC, group + "nodes": plain}, want: change.OK, says: []string{"0 s in nodes", "with amazonvpc, kOps turns graceful node shutdown off, so pods get no SIGTERM then"}, without: "would get"},
		"turned off":  {workers: one, store: documents{file: name + "spec: {kubelet: {shutdownGracePeriod: 0s}}", group + "nodes": plain}, want: change.OK, says: []string{"0 s in nodes", would}},
		"before 1.23": {workers: one, store: documents{file: name + "spec: {}", group + "nodes": plain}, want: change.OK, says: []string{"0 s in nodes", would}},
		"two groups":  {workers: two, store: documents{file: byDefault, group + "nodes": plain, group + "batch": plain}, want: change.OK, says: []string{"20 s in batch, nodes (state store)"}},
		"a group's override is the shortest": {workers: two, store: documents{file: byDefault, group + "nodes": plain, group + "batch": override("15s")}, setting: "20s", want: change.Fail,
			says: []string{"too long for batch: ", "5 s in batch (state store), 20 s in nodes (state store)", "ShutdownGrace=5s"}},
		"a group's override is longer":   {workers: two, store: documents{file: byDefault, group + "nodes": plain, group + "batch": override("150s")}, want: change.OK, says: []string{"140 s in batch", "ShutdownGrace=20s"}},
		"longer than the setting may be": {workers: two[1:], store: documents{file: byDefault, group + "batch": override("5m")}, want: change.OK, says: []string{"290 s in batch", "with ShutdownGrace=3m0s, a pod"}},
		"too long for Ubuntu": {workers: two, store: documents{file: byDefault, group + "nodes": override("31s"), group + "batch": plain}, want: change.Warn,
			says: []string{"0 s in nodes", "20 s in batch", "on Ubuntu, a kubelet cannot delay the shutdown for more than 30s", "to at most 30s"}, without: "ShutdownGrace="},
		"too long for Ubuntu, and relied on": {workers: one, store: documents{file: byDefault, group + "nodes": override("2m")}, setting: "20s", want: change.Fail, says: []string{"too long for nodes", "on Ubuntu"}},
		"critical pods take it all":          {workers: one, store: documents{file: name + "spec: {kubelet: {shutdownGracePeriod: 10s, shutdownGracePeriodCriticalPods: 20s}}", group + "nodes": plain}, want: change.OK, says: []string{"0 s in nodes"}},
		"no duration":                        {workers: one, store: documents{file: byDefault, group + "nodes": override("soon")}, want: change.OK, says: []string{"unknown for nodes", "soon"}},

		"by the kubelets": {workers: two, kubelets: map[string]string{"i-1": configz(`, "shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"`), "i-2": configz("")}, want: change.OK,
			says: []string{"0 s in batch (kubelet of i-2), 20 s in nodes (kubelet of i-1)"}},
		"by priority": {workers: one, kubelets: map[string]string{"i-1": configz(`, "shutdownGracePeriodByPodPriority": [{"priority": 2000000000, "shutdownGracePeriodSeconds": 5}, ` +
			`{"priority": 1000, "shutdownGracePeriodSeconds": 7}, {"priority": 0, "shutdownGracePeriodSeconds": 9}]`)}, want: change.OK, says: []string{"7 s in nodes"}},
		"by priority, only critical pods": {workers: one, kubelets: map[string]string{"i-1": configz(`, "shutdownGracePeriodByPodPriority": [{"priority": 2000000000, "shutdownGracePeriodSeconds": 5}]`)},
			want: change.OK, says: []string{"5 s in nodes"}},
		"a group that is not in the store": {workers: one, store: documents{file: byDefault}, kubelets: map[string]string{"i-1": configz("")}, want: change.OK, says: []string{"0 s in nodes (kubelet of i-1)"}},
		"a node without a group":           {workers: []Worker{{Node: "i-3", Ready: true}}, store: documents{file: byDefault}, kubelets: map[string]string{"i-3": configz("")}, want: change.OK, says: []string{"0 s in nodes without an instance group (kubelet of i-3)"}},
		"a Spot node is read":              {workers: []Worker{{Node: "i-4", Group: "nodes", Ready: true}, one[0], {Node: "i-5", Group: "nodes", Spot: true}}, kubelets: map[string]string{"i-1": configz("")}, want: change.OK, says: []string{"kubelet of i-1"}},
		"one group is unknown":             {workers: two, store: documents{file: byDefault, group + "nodes": plain}, want: change.OK, says: []string{"20 s in nodes", "unknown for batch"}, without: "ShutdownGrace="},
		"denied":                           {workers: one, store: documents{file: "denied"}, want: change.OK, says: []string{"unknown for nodes: reading configz of node i-1: ", "forbidden"}, without: "ShutdownGrace"},
		"denied, and relied on":            {workers: one, setting: "20s", want: change.Warn, says: []string{"unknown for nodes", "kubectl get --raw /api/v1/nodes/NODE/proxy/configz"}},
		"another program's answer":         {workers: one, kubelets: map[string]string{"i-1": "<html>"}, want: change.OK, says: []string{"its response is unknown"}},
		"no ready node":                    {workers: []Worker{{Node: "i-1", Group: "nodes"}}, kubelets: map[string]string{"i-1": configz("")}, want: change.OK, says: []string{"node i-1 is not ready"}},
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			node, _ := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/v1/nodes/"), "/proxy/configz")
			if c.kubelets[node] == "" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "nodes is forbidden"}`)
				return
			}
			_, _ = io.WriteString(w, c.kubelets[node])
		}))
		site := Site{Name: "prod.example.com", Account: "123456789012", Workers: c.workers, Login: &rest.Config{Host: proxy.URL}, Given: map[string]string{"ShutdownGrace": c.setting},
			AWS: awsadmin.New(aws.Config{Region: "eu-west-1", HTTPClient: c.store, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})}
		if c.store != nil {
			site.Store = "store/kops"
		}
		found, err := CheckShutdown(t.Context(), site)
		proxy.Close()
		if err != nil || len(found) != 1 {
			t.Errorf("%s: %+v, %v", name, found, err)
			continue
		}
		text := found[0].Detail + "\n" + found[0].Advice
		for _, want := range c.says {
			if found[0].Level != c.want || !strings.Contains(text, want) || c.without != "" && strings.Contains(text, c.without) {
				t.Errorf("%s: %s %s\nwant %s with %q, without %q", name, found[0].Level, text, c.want, want, c.without)
			}
		}
	}
}

// TestShutdownInterrupted: the user's interruption is an error, not an unknown window.
func TestShutdownInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	site := Site{Workers: []Worker{{Node: "i-1", Ready: true}}, Login: &rest.Config{Host: "https://127.0.0.1:1"}}
	if found, err := CheckShutdown(ctx, site); err == nil || len(found) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}
