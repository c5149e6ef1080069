package install

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
)

// Discovery is what was found out of a cluster, and what it means for the function.
type Discovery struct {
	Parameters map[string]string // of the stack
	Findings   change.Findings
}

// Site is a cluster in its account, as somebody reaches it who installs.
type Site struct {
	Cluster dynamic.Interface
	Login   *rest.Config
	AWS     *awsadmin.Account
	Name    string
	VPC     string
	Store   Store
}

// Discover finds out how the function can reach the cluster, by what whoever runs this reaches it with, and who else drains
// its nodes.
func Discover(ctx context.Context, s Site) (Discovery, error) {
	d := Discovery{Parameters: map[string]string{}}
	server, err := url.Parse(s.Login.Host)
	if err != nil {
		return d, fmt.Errorf("the kubeconfig's server: %w", err)
	}
	if err := d.endpoint(s.Login, server.Hostname()); err != nil {
		return d, err
	}
	if err := d.network(ctx, s, server.Hostname()); err != nil {
		return d, err
	}
	if err := d.version(ctx, s.Login); err != nil {
		return d, err
	}
	return d, d.findComponents(ctx, s.Cluster)
}

func (d *Discovery) find(level change.Level, name, detail, advice string) {
	d.Findings = append(d.Findings, change.Finding{Level: level, Name: name, Detail: detail, Advice: advice})
}

// endpoint takes server, certificates and name from the kubeconfig: with these somebody has just reached the cluster.
func (d *Discovery) endpoint(login *rest.Config, host string) error {
	d.Parameters["Server"] = strings.TrimRight(login.Host, "/")
	ca := login.CAData
	if len(ca) == 0 && login.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(login.CAFile); err != nil {
			return fmt.Errorf("reading the certificates that the kubeconfig names: %w", err)
		}
	}
	switch {
	case login.Insecure:
		d.find(change.Warn, "endpoint", login.Host+"; the kubeconfig has its certificate not checked (insecure-skip-tls-verify), and the function will check it",
			"--set CA=… with the cluster's certificates in base64, if they are not public")
		return nil
	case len(ca) == 0:
		d.Parameters["CA"], d.Parameters["TLSServerName"] = "", ""
		d.find(change.OK, "endpoint", login.Host+", with a public certificate", "")
		return nil
	}
	d.Parameters["CA"] = base64.StdEncoding.EncodeToString(ca)
	d.Parameters["TLSServerName"] = cmp.Or(login.ServerName, host)
	d.find(change.OK, "endpoint", fmt.Sprintf("%s, whose certificate is of the cluster's own CA, for %s", login.Host, d.Parameters["TLSServerName"]), "")
	return nil
}

// network says whether a function outside of the VPC could reach the API server: by the cluster's specification, else by the
// addresses of its name.
func (d *Discovery) network(ctx context.Context, s Site, host string) error {
	specified, err := s.Store.read(ctx, s.AWS, s.Name, d)
	if err != nil {
		return err
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	why := ""
	switch {
	case specified != nil && specified.privateReason() != "":
		why = specified.privateReason()
	case err != nil:
		why = host + " has no address here: the name may be in a private zone"
	case slices.ContainsFunc(addresses, netip.Addr.IsLoopback):
		d.find(change.Warn, "network", host+" is this machine: it is a tunnel, or a test", "--set Server=… with the address that the function is to use")
		return nil
	case !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !a.IsPrivate() }):
		why = host + " has private addresses only"
	}
	if why == "" {
		d.find(change.OK, "network", host+" has a public address; whether it lets Lambda in, kops-spot check tells", "")
		return nil
	}
	subnets, err := s.AWS.Subnets(ctx, s.VPC)
	if err != nil {
		return err
	}
	d.find(change.Warn, "network", why, "put the function into the VPC: --set SubnetIds="+strings.Join(candidates(subnets), ",")+
		" --set SecurityGroupIds=… with a group of its own, which the API's load balancer is to let in: docs/install.md says how")
	return nil
}

// candidates are at most three private subnets, each in a zone of its own.
func candidates(all []awsadmin.Subnet) (ids []string) {
	zones := map[string]bool{}
	for _, s := range all {
		if s.Private && !zones[s.Zone] && len(ids) < 3 {
			zones[s.Zone] = true
			ids = append(ids, s.ID)
		}
	}
	if len(ids) == 0 {
		return []string{"… (the VPC has no private subnet that kOps has tagged)"}
	}
	return ids
}

// oldest is the first version of Kubernetes that has policy/v1.
var oldest = version.MustParseGeneric("1.22")

// tooOld reports whether a version is older than that. One that cannot be read counts as new.
func tooOld(v string) bool {
	parsed, err := version.ParseGeneric(v)
	return err == nil && parsed.LessThan(oldest)
}

func (d *Discovery) version(ctx context.Context, login *rest.Config) error {
	client, err := rest.UnversionedRESTClientFor(dynamic.ConfigFor(login))
	if err != nil {
		return fmt.Errorf("preparing the client of %s: %w", login.Host, err)
	}
	var says struct{ GitVersion string }
	body, err := client.Get().AbsPath("/version").Timeout(30 * time.Second).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(body, &says)
	}
	if err != nil {
		return fmt.Errorf("asking the API server for its version: %w", kube.Advise(err))
	}
	v := says.GitVersion
	if tooOld(v) {
		return fmt.Errorf("checking the version of Kubernetes: %s is older than %s, the first with policy/v1: "+
			"upgrade the cluster first", v, oldest)
	}
	d.find(change.OK, "kubernetes", v, "")
	return nil
}

// other is somebody else who handles interruptions or makes nodes.
type component struct{ image, name, effect, advice string }

var components = []component{
	{"aws-node-termination-handler", "aws-node-termination-handler", "it cordons and evicts too, which does no harm; it asks for no replacement, and never past a budget",
		"once kops-spot acts, set spec.cloudProvider.aws.nodeTerminationHandler.enabled: false, and kops update cluster"},
	{"karpenter", "Karpenter", "the function has it replace its nodes by deleting their NodeClaims, where it may",
		"--karpenter lets the function do that"},
	{"cluster-autoscaler", "cluster-autoscaler", "it makes nodes for pods that have none; the function asks the node's group at once, and does not wait for it", ""},
	{"castai/spot-handler", "CAST AI's spot-handler", "it tells CAST AI of interruptions from the node; the function tells it too, with --set CASTAICluster=… and CASTAIKey=…", ""},
}

// others finds by their images who else is there.
func (d *Discovery) findComponents(ctx context.Context, cluster dynamic.Interface) error {
	found := map[string]string{}
	for _, resource := range []string{"deployments", "daemonsets"} {
		kind := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: resource}
		all, err := cluster.Resource(kind).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing %s: %w", resource, kube.Advise(err))
		}
		for _, o := range all.Items {
			containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			for _, k := range components {
				if slices.ContainsFunc(containers, func(c any) bool {
					image, _, _ := unstructured.NestedString(c.(map[string]any), "image")
					return strings.Contains(image, k.image)
				}) {
					found[k.name] = o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
				}
			}
		}
	}
	for _, k := range components {
		where, there := found[k.name]
		if !there {
			continue
		}
		level := change.OK
		if k.advice != "" {
			level = change.Warn
		}
		d.find(level, k.name, where+": "+k.effect, k.advice)
	}
	return nil
}
