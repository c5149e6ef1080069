package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

// TestEndToEnd: from the EventBridge event of one warning to Ready pods on the node of a new instance.
func TestEndToEnd(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 3, exit: time.Second}, app{name: "db", replicas: 1, exit: 2 * time.Second})
	r.daemon("logs")
	r.mirror("proxy", victim)

	began := time.Now()
	out := r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	r.published(began, victim)

	n := r.getNode(victim)
	if !n.Spec.Unschedulable || n.Labels["autoscaling.cast.ai/draining"] != "spot-interruption" {
		t.Errorf("the node is not cordoned: %v, %v", n.Spec, n.Labels)
	}
	if _, ok := n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]; !ok {
		t.Error("load balancers still use the node")
	}
	if left := r.podsOn(victim); len(left) != 2 ||
		!slices.ContainsFunc(left, func(p string) bool { return strings.HasPrefix(p, "logs-") }) {
		t.Errorf("the node has the pods %v; want the DaemonSet's and the mirror pod", left)
	}
	if out.Replacement.Action != spot.ReplaceDetach || out.Replacement.Group != r.group {
		t.Errorf("no replacement was requested: %+v", out.Replacement)
	}
	inst, _ := r.aws.Instance(victim)
	if inst.Tags[spot.TagDetached] != r.group || inst.Tags[spot.TagInterruptedAt] == "" {
		t.Errorf("the instance lacks the tags for kOps: %v", inst.Tags)
	}
	onPods, err := r.client.EventsV1().Events(r.namespace).List(t.Context(),
		metav1.ListOptions{FieldSelector: "reason=SpotInterruption"})
	if err != nil || len(onPods.Items) != 4 {
		t.Errorf("%d Kubernetes Events about the four evicted pods, %v", len(onPods.Items), err)
	}
	onNode, err := r.client.EventsV1().Events(metav1.NamespaceDefault).List(t.Context(),
		metav1.ListOptions{FieldSelector: "regarding.name=" + victim})
	if reasons := reasonsOf(onNode); err != nil || !reasons["SpotInterruption"] || !reasons["SpotDrained"] {
		t.Errorf("Kubernetes Events about the node: %v, %v", reasons, err)
	}
	// There is no other node: the pods wait for the new instance.
	r.waitReady("web", 3)
	r.waitReady("db", 1)
	if g := r.aws.Group(r.group); g.Desired != 1 || len(g.Members) != 1 || g.Members[0].ID == victim {
		t.Errorf("the group has %+v", g)
	}
	for _, p := range r.pods("app in (web, db)") {
		if p.Spec.NodeName == victim {
			t.Errorf("%s is still on the node", p.Name)
		}
	}
}

// published checks the notifications about a drained node: the start within 3.5 s, then the end.
func (r *fixture) published(began time.Time, node string) {
	r.Helper()
	events := r.fake.Events()
	if len(events) != 2 || events[0].DetailType != string(spot.NotificationStarted) || events[1].DetailType != string(spot.NotificationFinished) {
		r.Fatalf("published %+v, want the start and the end", events)
	}
	if after := events[0].Received.Sub(began); after > 3500*time.Millisecond {
		r.Errorf("the start was published after %s", after)
	}
	for i, e := range events {
		var n spot.Notification
		must(r.T, json.Unmarshal(e.Detail, &n))
		finished := i == 1
		if e.Source != spot.NotificationSource || n.Node != node || n.Cluster != cluster || n.Group != r.group || n.Lifecycle != "spot" ||
			n.Deadline.IsZero() || !strings.Contains(n.Summary, node) || (n.Outcome != nil) != finished || finished && n.Outcome.Result != spot.Drained {
			r.Errorf("published %s", e.Detail)
		}
	}
}

func reasonsOf(l *eventsv1.EventList) map[string]bool {
	reasons := map[string]bool{}
	for _, e := range l.Items {
		reasons[e.Reason] = true
	}
	return reasons
}

// TestRequests counts the requests for a node of N pods in the audit log.
func TestRequests(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 8})
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	var reqs []testenv.AuditRecord
	events := 0
	for _, q := range r.requests(victim) {
		if q.Resource == "events" {
			events++
		} else {
			reqs = append(reqs, q)
		}
	}
	if events > 8 { // and two about the node, in another namespace
		t.Errorf("%d Kubernetes Events for 8 pods", events)
	}
	if len(reqs) > 8+6 || len(reqs) < 8+4 {
		t.Errorf("%d requests for 8 pods", len(reqs))
	}
	var cordoned time.Time
	for _, q := range reqs {
		if q.Verb == "patch" && q.Resource == "nodes" {
			cordoned = q.Answered
		}
		if q.Resource == "nodes" && q.Verb == "list" {
			t.Error("all nodes were listed")
		}
	}
	for _, q := range reqs {
		if q.Subresource == "eviction" && q.Received.Before(cordoned) {
			t.Error("an eviction was sent before the cordon was done")
		}
	}
}

// TestRoundTrips: the first eviction is sent in the third round trip to the API server. The proxy answers the requests
// of a round only when all of them have arrived, and all other requests only after the evictions.
func TestRoundTrips(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	const pods = 3
	r.deploy(app{name: "web", replicas: pods})
	apiServer := r.apiServer()
	var mu sync.Mutex
	sent, overdue, changed := map[string]int{}, "", sync.NewCond(&mu)
	r.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		request := req.Method
		switch list := req.URL.Path == "/api/v1/pods" && !req.URL.Query().Has("watch"); {
		case list:
			request = "list"
		case strings.HasSuffix(req.URL.Path, "/eviction"):
			request = "evict"
		}
		mu.Lock()
		sent[request]++
		number := sent[request]
		changed.Broadcast()
		timeout := time.AfterFunc(time.Minute, func() {
			mu.Lock()
			defer mu.Unlock()
			overdue = request
			changed.Broadcast()
		})
		answered := func() bool {
			switch {
			case request == http.MethodGet && number == 1: // the node
				return true
			case (request == http.MethodPatch || request == "list") && number == 1:
				return sent[http.MethodPatch] > 0 && sent["list"] > 0
			}
			return sent["evict"] >= pods
		}
		for !answered() && overdue == "" {
			changed.Wait()
		}
		mu.Unlock()
		timeout.Stop()
		apiServer.ServeHTTP(w, req)
	}))
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	mu.Lock()
	defer mu.Unlock()
	if overdue != "" {
		t.Errorf("after %s, the handler waited for an answer before it evicted the pods: %v", overdue, sent)
	}
}

// TestNodeNames covers the three ways in which kOps names nodes, and a custom name.
func TestNodeNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		instance func(*spottest.Instance)
		node     func(spottest.Instance) string
	}{
		"the instance ID": {func(*spottest.Instance) {}, func(i spottest.Instance) string { return i.ID }},
		"EC2's DNS name":  {func(*spottest.Instance) {}, func(i spottest.Instance) string { return i.PrivateDNSName }},
		"from the IP address": {func(i *spottest.Instance) { i.PrivateDNSName = i.ID + ".example.internal" },
			func(i spottest.Instance) string {
				return "ip-" + strings.ReplaceAll(i.PrivateIP, ".", "-") + ".ec2.internal"
			}},
		"a custom name": {func(*spottest.Instance) {}, func(i spottest.Instance) string { return "worker-" + i.ID }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			i := r.instance(c.instance)
			victim := c.node(i)
			must(t, r.register(i, victim))
			r.deploy(app{name: "web", replicas: 2})
			out := r.handle(r.warning(spot.SpotTerminate, i.ID, 0), spot.Drained)
			if out.Node != victim || !r.getNode(victim).Spec.Unschedulable || len(r.podsOn(victim)) != 0 {
				t.Errorf("node %s was drained: %v", out.Node, r.podsOn(victim))
			}
			if out.Replacement.Action != spot.ReplaceDetach {
				t.Errorf("%+v", out.Replacement)
			}
		})
	}
}

// TestNotOurs: EventBridge sends every event of the region to every function.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	for name, tags := range map[string]map[string]string{
		"another cluster's": {spot.TagCluster: "other.example.com"},
		"not from kOps":     {"Name": "jenkins"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 1})
			// It also has the address of our node: a name derived from the address must not match.
			ours, _ := r.aws.Instance(victim)
			foreign := r.aws.AddInstance(spottest.Instance{PrivateIP: ours.PrivateIP, Tags: tags})
			r.aws.AddGroup(spottest.Group{Name: "nodes.other.example.com", Tags: tags, LaunchTime: time.Second},
				spottest.Instance{Tags: tags})
			out := r.handle(r.warning(spot.SpotTerminate, foreign.ID, 0), spot.OtherCluster)
			r.nothingChanged(victim)
			if took := float64(*out.Timings.Finished - *out.Timings.Started); took > 2 {
				t.Errorf("it took %.1f s", took)
			}
		})
	}
}

// nothingChanged fails if the node, its pods or the account have changed.
func (r *fixture) nothingChanged(node string) {
	r.Helper()
	if n := r.getNode(node); n.Spec.Unschedulable || len(n.Spec.Taints) != 0 ||
		len(n.Annotations["kops-spot.cast.ai/event"]) != 0 {
		r.Errorf("the node was changed: %+v", n.Spec)
	}
	if recs := r.kubelet(testenv.PodSigTerm); len(recs) != 0 {
		r.Errorf("pods got SIGTERM: %v", recs)
	}
	if calls := r.aws.Calls("CreateTags", "DetachInstances"); len(calls) != 0 {
		r.Errorf("AWS was changed: %v", calls)
	}
	for _, q := range r.requests(node) {
		if q.Verb != "get" && q.Verb != "list" && q.Verb != "watch" {
			r.Errorf("the cluster was written to: %s %s", q.Verb, q.URI)
		}
	}
}

func TestNodeRegistersLate(t *testing.T) {
	r := newFixture(t)
	i := r.instance()
	in := r.warning(spot.SpotTerminate, i.ID, 0)
	registered := make(chan error, 1)
	go func() {
		time.Sleep(6 * time.Second)
		registered <- r.register(i, i.ID)
	}()
	out := r.handle(in, spot.Drained)
	must(t, <-registered)
	if *out.Timings.Cordoned < 5 || *out.Timings.Cordoned > 12 || !r.getNode(i.ID).Spec.Unschedulable {
		t.Errorf("cordoned %v s after the event", *out.Timings.Cordoned)
	}
	if *out.Replacement.At > 5 {
		t.Errorf("the replacement waited for the node: %v s", *out.Replacement.At)
	}
}

func TestReplayedAndExpiredEvents(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 1})
	s := r.service()
	replay := r.warning(spot.SpotTerminate, victim, 0)
	replay.Replayed = true
	for name, in := range map[string]spot.Interruption{"expired": r.warning(spot.SpotTerminate, victim,
		185*time.Second), "replayed": replay} {
		t.Run(name, func(t *testing.T) {
			r.outcome(r.invoke(s, r.encode(in)), spot.Expired)
			r.nothingChanged(victim)
		})
	}
}

// TestObserve: mode observe changes nothing and returns the plan that mode act carries out.
func TestObserve(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2}, app{name: "slow", replicas: 1, grace: 10 * time.Minute})
	r.daemon("logs")
	in := r.warning(spot.SpotTerminate, victim, 0)
	r.env["KOPS_SPOT_MODE"] = "observe"
	observed := r.handle(in, spot.Planned)
	r.nothingChanged(victim)
	r.env["KOPS_SPOT_MODE"] = "act"
	acted := r.handle(in, spot.Drained)
	if observed.Plan.Group != acted.Plan.Group || observed.Plan.Replace != spot.ReplaceDetach ||
		acted.Plan.Replace != spot.ReplaceDetach || !observed.Plan.Cordon {
		t.Errorf("the plans differ: %+v, %+v", observed.Plan, acted.Plan)
	}
	if !observed.Deadline.Equal(acted.Deadline) {
		t.Errorf("the deadlines differ: %v, %v", observed.Deadline, acted.Deadline)
	}
	same := func(a, b spot.PlannedPod) bool { // a capped grace period is shorter a moment later
		cut := a.GracePeriod - b.GracePeriod
		a.GracePeriod, b.GracePeriod = 0, 0
		if a.ForceAt == nil || b.ForceAt == nil {
			return a.ForceAt == b.ForceAt && a == b
		}
		force := *a.ForceAt == *b.ForceAt
		a.ForceAt, b.ForceAt = nil, nil
		return force && a.Name == b.Name && a.Action == b.Action && cut >= 0 && cut < 20
	}
	if !slices.EqualFunc(observed.Plan.Pods, acted.Plan.Pods, same) || len(acted.Plan.Pods) != 4 {
		t.Errorf("the plans of the pods differ:\n%+v\n%+v", observed.Plan.Pods, acted.Plan.Pods)
	}
}

// TestInterruptionActions: terminate, stop and hibernate.
func TestInterruptionActions(t *testing.T) {
	t.Parallel()
	for kind, c := range map[spot.Kind]struct {
		detached bool
		forced   bool
		age      time.Duration
		result   spot.Result
	}{
		spot.SpotTerminate: {detached: true, forced: true, age: 100 * time.Second, result: spot.Drained},
		spot.SpotStop:      {forced: true, age: 100 * time.Second, result: spot.Drained},
		spot.SpotHibernate: {age: 8 * time.Second, result: spot.Incomplete},
	} {
		t.Run(string(kind), func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "guarded", replicas: 1, grace: 2 * time.Second},
				app{name: "long", replicas: 1, grace: 5 * time.Minute})
			r.guard("guarded", 1)
			out := r.handle(r.warning(kind, victim, c.age), c.result)
			if n := len(r.aws.Calls("DetachInstances")); (n == 1) != c.detached ||
				(out.Replacement.Action == spot.ReplaceDetach) != c.detached {
				t.Errorf("%d detaches: %+v", n, out.Replacement)
			}
			var forced, refused bool
			for _, p := range out.Pods {
				forced = forced || p.Status == spot.PodForceDeleted
				refused = refused || strings.HasPrefix(p.Name, "guarded-") && p.Refusals > 0
			}
			if forced != c.forced || !refused {
				t.Errorf("forced %v, refused %v: %+v", forced, refused, out.Pods)
			}
			long := r.kubeletGrace("long-")
			if cut := long < 300; cut == (kind == spot.SpotHibernate) {
				t.Errorf("%s gave a pod %d s of its 300 s", kind, long)
			}
			if !r.getNode(victim).Spec.Unschedulable {
				t.Error("the node is not cordoned")
			}
		})
	}
}

// kubeletGrace returns the grace period of the pod with that prefix when it got SIGTERM.
func (r *fixture) kubeletGrace(prefix string) int64 {
	r.Helper()
	for _, rec := range r.kubelet(testenv.PodSigTerm) {
		if strings.HasPrefix(rec.Pod, prefix) {
			return rec.Grace
		}
	}
	r.Fatalf("no pod %s… got SIGTERM", prefix)
	return 0
}

// TestForbiddenAndExpired: tokens without the shipped RBAC, and tokens that the API server rejects.
func TestForbiddenAndExpired(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.aws.Fail(spottest.AnyOperation, -1, spottest.Denied())
	other, err := r.cp.ServiceAccountToken(t.Context(), r.namespace, "default", time.Hour)
	must(t, err)
	for name, c := range map[string]struct{ token, want string }{
		"forbidden": {other, "deploy/rbac.yaml"},
		"foreign":   {"eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "the token belongs to another cluster"},
		"expired":   {"eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln", "the token expired on"},
	} {
		t.Run(name, func(t *testing.T) {
			r.env["KOPS_SPOT_LOGIN"] = "file:" + r.file(name, c.token)
			said := r.failure(r.encode(r.warning(spot.SpotTerminate, victim, 105*time.Second)))
			if !strings.Contains(said, c.want) || !strings.Contains(said, "reading node "+victim) {
				t.Errorf("it does not say what to do: %s", said)
			}
			if !strings.Contains(said, "DescribeInstances") {
				t.Errorf("it does not name the denied action of AWS: %s", said)
			}
			if strings.Contains(said+r.logs.String(), c.token) {
				t.Error("the token is in the error or in the log")
			}
		})
	}
	r.env["KOPS_SPOT_LOGIN"] = "file:/nowhere"
	if said := r.failure(r.encode(r.warning(spot.SpotTerminate, victim, 105*time.Second))); !strings.Contains(said, "/nowhere") {
		t.Errorf("%s", said)
	}
	r.nothingChanged(victim)
}

func TestBadEventsAndConfiguration(t *testing.T) {
	r := newFixture(t)
	s := r.service()
	out := r.outcome(r.invoke(s, []byte(`{"source":"aws.ec2","detail-type":"EC2 AMI State Change","id":"x","detail":{}}`)), spot.Ignored)
	if out.Event.DetailType != "EC2 AMI State Change" {
		t.Errorf("%+v", out)
	}
	for event, want := range map[string]string{
		`{}`: "detail-type",
		`{"source":"aws.ec2","detail-type":"EC2 Spot Instance Interruption Warning","id":"x","time":"2026-01-01T00:00:00Z","region":"us-east-1","detail":{"instance-id":"i-1","instance-action":"terminate"}}`: "is not an EC2 instance ID",
	} {
		if said := r.failure([]byte(event)); !strings.Contains(said, want) {
			t.Errorf("%s: %s", event, said)
		}
	}
	r.env["KOPS_SPOT_MODE"], r.env["KOPS_SPOT_CLUSTR"] = "maybe", "x"
	said := r.failure(r.encode(r.warning(spot.SpotTerminate, "i-1234567890abcdef0", 0)))
	for _, want := range []string{"KOPS_SPOT_MODE: set it to observe", `"maybe"`, "KOPS_SPOT_CLUSTR: unknown setting"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in: %s", want, said)
		}
	}
	if len(r.aws.Calls()) != 0 {
		t.Errorf("AWS got requests: %v", r.aws.Calls())
	}
}

// TestRBACIsMinimal: with the shipped RBAC, the handler cannot read secrets, for example.
func TestRBACIsMinimal(t *testing.T) {
	r := newFixture(t)
	cfg := r.cp.TokenConfig(shared.token)
	cfg.UserAgent = probeAgent
	handler, err := kubernetes.NewForConfig(cfg)
	must(t, err)
	if _, err := handler.CoreV1().Secrets("kube-system").List(t.Context(),
		metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the handler may list secrets: %v", err)
	}
	if err := handler.CoreV1().Namespaces().Delete(t.Context(), "nobody",
		metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the handler may delete namespaces: %v", err)
	}
}
