// Package e2e sends real events through the real binary to a real API server.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster  = "prod.example.com"
	region   = "us-east-1"
	function = "cast-spot-handler"

	// handlerUser is the user that the shipped RBAC binds and that all tests' handlers authenticate as.
	handlerUser = "system:serviceaccount:kube-system:kops-spot"

	// probeAgent is the user agent of a test that sends requests beyond the handler's, with the same ServiceAccount.
	probeAgent = "e2e-probe"
)

// shared is used by all tests. Each test has its own namespace, nodes, AWS account and function.
var shared struct {
	cp        *testenv.ControlPlane
	auth      *testenv.Authenticator
	bootstrap string
	token     string
}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("8"); err != nil { // the tests mostly wait, so run more than there are processors
			panic(err)
		}
	}
	start()
	if all := flag.Lookup("test.run").Value.String() == ""; all {
		testenv.Main(m, checkPermissions)
	}
	testenv.Main(m, nil)
}

var start = testenv.Once(func(ctx context.Context) (_ struct{}, err error) {
	if shared.bootstrap, err = testenv.BuildBootstrap(ctx); err != nil {
		return
	}
	if shared.cp, shared.auth, err = testenv.StartWithAuthenticator(ctx, testenv.Options{Log: os.Stderr},
		authenticatorOptions()); err != nil {
		return
	}
	if err = shared.cp.Apply(ctx, deploy.RBAC); err != nil {
		return
	}
	shared.token, err = shared.cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", time.Hour)
	return
}, func(struct{}) error { return errors.Join(shared.cp.Stop(), shared.auth.Stop()) })

// fixture is the environment of one test.
type fixture struct {
	*testing.T
	cp        *testenv.ControlPlane
	client    kubernetes.Interface
	namespace string
	aws       *spottest.AWS
	fake      *fakeaws.Server
	group     string            // of the newest instance
	env       map[string]string // of the function
	watched   bool              // the cloud controller deletes nodes that are registered from now on
	began     time.Time

	logs    *fakelambda.Log
	mu      sync.Mutex
	records []fakelambda.Record
	number  int // of the fixture
	nodes   int // so far
}

var fixtures atomic.Int32

// newFixture creates a namespace, an empty Auto Scaling group and a function in mode act. Instances of the group become
// nodes.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	return newSerialFixture(t)
}

// newSerialFixture is newFixture for a test that does not run in parallel.
func newSerialFixture(t *testing.T) *fixture {
	t.Helper()
	n := fixtures.Add(1)
	r := &fixture{T: t, cp: shared.cp, client: shared.cp.Client(), namespace: fmt.Sprintf("e2e-%02d", n),
		aws:   spottest.NewAWS(region),
		began: time.Now(), logs: &fakelambda.Log{}, number: int(n)}
	r.aws.CountIDsFrom(r.number << 20)
	var err error
	if r.fake, err = fakeaws.Start(r.aws, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.fake.Close() })
	must(t, r.cp.CreateNamespace(t.Context(), r.namespace))
	var registering sync.WaitGroup
	r.aws.OnLaunch(func(i spottest.Instance) {
		if t.Context().Err() != nil {
			return // the test is over
		}
		registering.Add(1)
		defer registering.Done()
		if err := r.register(i, i.ID); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(registering.Wait)
	r.env = r.cp.FunctionEnv(cluster, r.file("token", shared.token), r.fake.Env())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the function's log:\n%s", r.logs)
		}
		if strings.Contains(r.logs.String(), shared.token) {
			t.Error("the token is in the function's log")
		}
	})
	return r
}

func (r *fixture) file(name, content string) string {
	r.Helper()
	path := filepath.Join(r.TempDir(), name)
	must(r, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// register creates the node of an instance. Only this test's pods are scheduled on it.
func (r *fixture) register(i spottest.Instance, name string) error {
	return r.cp.CreateNodes(context.WithoutCancel(r.Context()), r.nodeOf(i, name))
}

func (r *fixture) nodeOf(i spottest.Instance, name string) testenv.Node {
	n := testenv.Node{Name: name, InstanceID: i.ID, Zone: i.Zone, PrivateIP: i.PrivateIP,
		Labels: map[string]string{"e2e": r.namespace}}
	if r.watched {
		n.EC2 = r.fake.URL()
	}
	return n
}

// instance creates an instance in its own group, which is at its maximum size. change modifies the instance before
// that.
func (r *fixture) instance(change ...func(*spottest.Instance)) spottest.Instance {
	r.Helper()
	r.nodes++
	i := spottest.Instance{ID: fmt.Sprintf("i-0e2e%06x%07x", r.number, r.nodes),
		PrivateIP: fmt.Sprintf("10.%d.%d.%d", r.number>>8, r.number&255, r.nodes),
		Zone:      region + "a", Spot: true}
	for _, c := range change {
		c(&i)
	}
	r.group = fmt.Sprintf("nodes-%d-%d.%s", r.number, r.nodes, cluster)
	r.aws.AddGroup(spottest.Group{Name: r.group, Min: 1, Max: 1, Desired: 1,
		Tags: map[string]string{spot.TagCluster: cluster}, Spot: true,
		LaunchTime: time.Second, DetachTime: time.Second}, i)
	i, ok := r.aws.Instance(i.ID)
	if !ok {
		r.Fatal("the instance was not added")
	}
	return i
}

// node creates an instance and its node, which is named by the instance ID.
func (r *fixture) node() string {
	r.Helper()
	i := r.instance()
	must(r, r.register(i, i.ID))
	return i.ID
}

func (r *fixture) moto() *testenv.Moto {
	r.Helper()
	moto, err := testenv.StartMoto(r.Context(), r.TempDir())
	must(r, err)
	r.Cleanup(func() {
		if err := moto.Stop(); err != nil {
			r.Error(err)
		}
	})
	return moto
}

// service starts the function with the current environment.
func (r *fixture) service() *fakelambda.Service {
	r.Helper()
	keep := func(rec fakelambda.Record) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.records = append(r.records, rec)
		return nil
	}
	one := 1
	s, err := fakelambda.New(fakelambda.Options{Region: region,
		RetryDelays: [2]time.Duration{time.Second, time.Second},
		Functions: []fakelambda.Function{{Name: function, Bootstrap: shared.bootstrap, Environment: r.env,
			Timeout: 15 * time.Minute, MemorySize: 256, Logs: r.logs,
			Async: fakelambda.AsyncConfig{MaximumRetryAttempts: &one, OnSuccess: keep, OnFailure: keep}}}})
	must(r, err)
	r.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.Error(err)
		}
	})
	return s
}

// warning is an interruption warning that EC2 sent the given time ago.
func (r *fixture) warning(kind spot.Kind, instance string, age time.Duration) spot.Interruption {
	return spot.Interruption{EventID: "event-" + r.namespace, Kind: kind, Instance: instance, Account: "123456789012",
		Region: region,
		Time:   time.Now().Add(-age).UTC().Truncate(time.Second)}
}

func (r *fixture) encode(in spot.Interruption) []byte {
	r.Helper()
	event, err := eventbridge.Encode(in)
	must(r, err)
	return event
}

func (r *fixture) invoke(s *fakelambda.Service, event []byte) fakelambda.Result {
	r.Helper()
	res, err := s.Invoke(r.Context(), function, fakelambda.RequestResponse, event)
	must(r, err)
	return res
}

// handle invokes a new function with the event and fails unless it returns the result.
func (r *fixture) handle(in spot.Interruption, want spot.Result) spot.Outcome {
	r.Helper()
	return r.outcome(r.invoke(r.service(), r.encode(in)), want)
}

func (r *fixture) outcome(res fakelambda.Result, want spot.Result) spot.Outcome {
	r.Helper()
	out, err := r.decode(res)
	if err != nil {
		r.Fatalf("the function failed: %v", err)
	}
	if out.Result != want {
		r.Fatalf("the result is %s, want %s: %s", out.Result, want, res.Payload)
	}
	return out
}

// decode returns the outcome or the error in the function's response.
func (r *fixture) decode(res fakelambda.Result) (out spot.Outcome, err error) {
	r.Helper()
	if res.FunctionError != "" {
		var e struct{ ErrorMessage string }
		must(r, json.Unmarshal(res.Payload, &e))
		return out, errors.New(e.ErrorMessage)
	}
	d := json.NewDecoder(bytes.NewReader(res.Payload))
	d.DisallowUnknownFields()
	must(r, d.Decode(&out))
	return out, nil
}

// failure invokes a new function with the event, which must fail, and returns the error message.
func (r *fixture) failure(event []byte) string {
	r.Helper()
	out, err := r.decode(r.invoke(r.service(), event))
	if err == nil {
		r.Fatalf("no error: %+v", out)
	}
	return err.Error()
}
