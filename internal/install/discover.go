package install

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
)

// Discovery is what was found out about a cluster.
type Discovery struct {
	Parameters map[string]string // of the stack
	Findings   change.Findings
}

// Site is a cluster in its account, and the operator's access to both.
type Site struct {
	Cluster dynamic.Interface
	Login   *rest.Config
	AWS     *awsadmin.Account
	Name    string
	Account string
	VPC     string
	Store   Store
	Workers []Worker
	Given   map[string]string // parameters of --set, and of the stack
}

// Discover finds out how the function can reach the API server, based on the operator's kubeconfig, and who else drains
// nodes.
func Discover(ctx context.Context, s Site) (Discovery, error) {
	d := Discovery{Parameters: map[string]string{}}
	if err := d.endpoint(s.Login); err != nil {
		return d, err
	}
	specified, err := s.Store.read(ctx, s, &d)
	if err != nil {
		return d, err
	}
	if err := d.network(ctx, s, specified); err != nil {
		return d, err
	}
	if err := d.version(ctx, s.Login); err != nil {
		return d, err
	}
	kubelets, err := shutdown(ctx, s, specified)
	if err != nil {
		return d, err
	}
	d.Findings = append(d.Findings, kubelets...)
	return d, d.findComponents(ctx, s.Cluster)
}

func (d *Discovery) find(level change.Level, name, detail, advice string) {
	d.Findings = append(d.Findings, change.Finding{Level: level, Name: name, Detail: detail, Advice: advice})
}

// endpoint takes server and CA from the kubeconfig, with which the operator has just reached the cluster.
func (d *Discovery) endpoint(login *rest.Config) error {
	d.Parameters["Server"] = strings.TrimRight(login.Host, "/")
	ca := login.CAData
	if len(ca) == 0 && login.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(login.CAFile); err != nil {
			return fmt.Errorf("reading the kubeconfig's CA certificates: %w", err)
		}
	}
	switch {
	case login.Insecure:
		d.find(change.Warn, "endpoint", login.Host+"; the kubeconfig sets insecure-skip-tls-verify, but the function "+
			"verifies the certificate", "--set CA=… with the cluster's CA certificates in base64, unless it is public")
	case len(ca) == 0:
		d.Parameters["CA"] = ""
		d.find(change.OK, "endpoint", login.Host+" (public certificate)", "")
	default:
		d.Parameters["CA"] = base64.StdEncoding.EncodeToString(ca)
		d.find(change.OK, "endpoint", login.Host+" (cluster CA)", "")
	}
	return nil
}

// network finds out whether a function outside the VPC could reach the API server: by the cluster's specification, or
// by the addresses of its host name. CheckNetwork checks a function in the VPC.
func (d *Discovery) network(ctx context.Context, s Site, specified *spec) error {
	if s.Given["SubnetIds"] != "" {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, cmp.Or(s.Given["Server"], s.Login.Host), nil)
	if err != nil {
		return fmt.Errorf("parsing the API server's URL: %w", err)
	}
	host, why := request.URL.Hostname(), specified.privateReason()
	switch proxy, err := kube.ProxyOf(s.Login, request); {
	case s.Given["HttpsProxy"] != "":
		d.find(change.OK, "network", "the function connects through a proxy; kops-spot check tests it", "")
		return nil
	case why == "" && err == nil && proxy != nil:
		d.find(change.Warn, "network", "this computer reaches "+host+" through the proxy "+proxy.Host+
			", so whether Lambda can is not known", "kops-spot check tests it after the installation")
		return nil
	case why == "":
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		switch {
		case err != nil:
			why = host + " does not resolve here: it may be in a private hosted zone"
		case slices.ContainsFunc(addresses, netip.Addr.IsLoopback):
			d.find(change.Warn, "network", host+" is this computer: a tunnel or a test",
				"--set Server=… with the address for the function")
			return nil
		case !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !a.IsPrivate() }):
			why = host + " has only private addresses"
		default:
			d.find(change.OK, "network", host+" has a public address; kops-spot check tests whether Lambda can reach it", "")
			return nil
		}
	}
	subnets, err := s.AWS.Subnets(ctx, s.VPC)
	if err != nil {
		return err
	}
	ids := strings.Join(candidates(subnets), ",")
	d.find(change.Warn, "network", why, "put the function into the VPC: --set SubnetIds="+ids+
		" --set SecurityGroupIds=… with a new group that the API's load balancer allows: see docs/install.md")
	return nil
}

// candidates returns up to three private subnets in different zones.
func candidates(all []awsadmin.Subnet) (ids []string) {
	zones := map[string]bool{}
	for _, s := range all {
		if s.Private && !zones[s.Zone] && len(ids) < 3 {
			zones[s.Zone] = true
			ids = append(ids, s.ID)
		}
	}
	if len(ids) == 0 {
		return []string{"… (the VPC has no private subnet with kOps' tag)"}
	}
	return ids
}

// oldest is the first version of Kubernetes with policy/v1.
var oldest = version.MustParseGeneric("1.22")

// tooOld reports whether a version is not supported. One that does not parse counts as new.
func tooOld(v string) bool {
	parsed, err := version.ParseGeneric(v)
	return err == nil && parsed.LessThan(oldest)
}

func (d *Discovery) version(ctx context.Context, login *rest.Config) error {
	client, err := rest.UnversionedRESTClientFor(dynamic.ConfigFor(login))
	if err != nil {
		return fmt.Errorf("preparing the client of %s: %w", login.Host, err)
	}
	var info struct{ GitVersion string }
	body, err := client.Get().AbsPath("/version").Timeout(30 * time.Second).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(body, &info)
	}
	if err != nil {
		return fmt.Errorf("reading the API server's version: %w", kube.Advise(err))
	}
	v := info.GitVersion
	if tooOld(v) {
		return fmt.Errorf("unsupported Kubernetes version %s: upgrade the cluster to %s or later, for policy/v1", v, oldest)
	}
	d.find(change.OK, "kubernetes", v, "")
	return nil
}

// component is other software that handles interruptions or creates nodes.
type component struct{ image, name, effect, advice string }

var components = []component{
	{NTH, NTH, "leave it: both may run, and it also drains nodes that Auto Scaling terminates; " +
		"docs/migrating-from-nth.md has the alternatives", ""},
	{"karpenter", "Karpenter", "the function makes it replace nodes by deleting NodeClaims, if that is allowed",
		"--karpenter allows it"},
	{"cluster-autoscaler", "cluster-autoscaler",
		"it creates nodes for pending pods; the function requests one from the node's group at once", ""},
	{"castai/spot-handler", "CAST AI's spot-handler",
		"it notifies CAST AI from the node; the function also does, with --set CASTAICluster=… and CASTAIKey=…", ""},
}

// A Workload runs one of the components.
type Workload struct {
	Kind, Namespace, Name string
	UID                   types.UID
	Ready                 int64 // replicas; of a Deployment only
}

func (w Workload) String() string { return w.Kind + " " + w.Namespace + "/" + w.Name }

// workloads are the kinds of workloads.
var workloads = map[string]schema.GroupVersionResource{
	"Deployment": {Group: "apps", Version: "v1", Resource: "deployments"},
	"DaemonSet":  {Group: "apps", Version: "v1", Resource: "daemonsets"},
}

// findWorkloads finds the workloads of each component by their images.
func findWorkloads(ctx context.Context, cluster dynamic.Interface) (map[string][]Workload, error) {
	found := map[string][]Workload{}
	for _, kind := range slices.Sorted(maps.Keys(workloads)) {
		resource := workloads[kind]
		all, err := cluster.Resource(resource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", resource.Resource, kube.Advise(err))
		}
		for _, o := range all.Items {
			ready, _, _ := unstructured.NestedInt64(o.Object, "status", "readyReplicas")
			containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			for _, c := range containers {
				image, _, _ := unstructured.NestedString(c.(map[string]any), "image")
				for _, k := range components {
					if strings.Contains(image, k.image) {
						found[k.name] = append(found[k.name], Workload{kind, o.GetNamespace(), o.GetName(), o.GetUID(), ready})
					}
				}
			}
		}
	}
	return found, nil
}

// findComponents reports the components that run.
func (d *Discovery) findComponents(ctx context.Context, cluster dynamic.Interface) error {
	found, err := findWorkloads(ctx, cluster)
	for _, k := range components {
		level := change.OK
		if k.advice != "" {
			level = change.Warn
		}
		if where := found[k.name]; len(where) > 0 {
			d.find(level, k.name, where[0].String()+": "+k.effect, k.advice)
		}
	}
	return err
}

// spec is the part of a cluster's specification in kOps' state store (https://kops.sigs.k8s.io/cluster_spec/) that says
// who can reach the API server, and what its kubelets do when an instance shuts down.
type spec struct {
	incomplete bool // without kOps' defaults
	Metadata   struct{ Name string }
	Spec       struct {
		KubernetesAPIAccess []string `yaml:"kubernetesApiAccess"`
		API                 struct {
			Access       []string
			LoadBalancer *struct{ Type string } `yaml:"loadBalancer"`
		}
		Kubelet    shutdownPeriods
		Networking struct{ AmazonVPC *struct{} }
	}
}

// privateReason says why a function outside the VPC cannot reach the API server; empty if it can, or if nothing is
// known.
func (s *spec) privateReason() string {
	if s == nil {
		return ""
	}
	access := slices.Concat(s.Spec.KubernetesAPIAccess, s.Spec.API.Access)
	switch lb := s.Spec.API.LoadBalancer; {
	case lb != nil && lb.Type == "Internal":
		return "the API's load balancer is internal, by the state store"
	case len(access) > 0 && !slices.Contains(access, "0.0.0.0/0"):
		return "by the state store, the API allows only " + strings.Join(access, ", ") +
			", and a function outside the VPC has no fixed address"
	}
	return ""
}

// Store is kOps' state store, as bucket or bucket/prefix.
type Store string

// specification is the file of a cluster's specification with the values that kOps has completed, since kOps 1.22.
const specification = "cluster-completed.spec"

// parse parses a file of a cluster and returns its URL.
func (s Store) parse(ctx context.Context, in Site, file string, into any) (name string, err error) {
	bucket, prefix, _ := strings.Cut(string(s), "/")
	key := strings.TrimPrefix(prefix+"/"+in.Name+"/"+file, "/")
	name = "s3://" + bucket + "/" + key
	text, err := in.AWS.Object(ctx, bucket, in.Account, key)
	if err == nil && text == nil {
		err = fmt.Errorf("%s does not exist", name)
	}
	if err == nil {
		if err = yaml.Unmarshal(text, into); err != nil {
			err = fmt.Errorf("parsing %s: %w", name, err)
		}
	}
	return name, err
}

// read reads a cluster's specification; nil if there is no known store, or with a finding if it cannot be read. Older
// versions of kOps, and permissions for them, have only the file with what the user has specified.
func (s Store) read(ctx context.Context, in Site, d *Discovery) (*spec, error) {
	if s == "" {
		return nil, nil
	}
	var read spec
	name, err := s.parse(ctx, in, specification, &read)
	if err != nil {
		read = spec{incomplete: true}
		if given, failed := s.parse(ctx, in, "config", &read); failed == nil {
			name, err = given, nil
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		advice := "whether the API server is reachable from outside the VPC is guessed by its address"
		if errors.Is(err, awsadmin.ErrDenied) {
			advice = "allow it, if the bucket is this account's; without it, " + advice
		}
		d.find(change.Warn, "state store", err.Error(), advice)
		return nil, nil
	case read.Metadata.Name != in.Name:
		return nil, fmt.Errorf("%s belongs to the cluster %q and not to %s: set --state to the kOps state store", name,
			read.Metadata.Name, in.Name)
	}
	return &read, nil
}
