package install

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// Discovery is what was found out of a cluster, and what it means for the function.
type Discovery struct {
	Parameters map[string]string // of the stack
	Findings   change.Findings
}

// Discover finds out how the function can reach the cluster, by what whoever runs this reaches it with, and who else drains
// its nodes.
func Discover(ctx context.Context, cluster *kubeadmin.Client, login *rest.Config) (Discovery, error) {
	d := Discovery{Parameters: map[string]string{}}
	if err := d.endpoint(login); err != nil {
		return d, err
	}
	d.network(ctx, login.Host)
	if err := d.version(ctx, cluster); err != nil {
		return d, err
	}
	return d, d.others(ctx, cluster)
}

func (d *Discovery) find(level change.Level, name, detail, advice string) {
	d.Findings = append(d.Findings, change.Finding{Level: level, Name: name, Detail: detail, Advice: advice})
}

// endpoint takes server, certificates and name from the kubeconfig: with these somebody has just reached the cluster.
func (d *Discovery) endpoint(login *rest.Config) error {
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
		d.find(change.OK, "endpoint", login.Host+", with a public certificate", "")
		return nil
	}
	d.Parameters["CA"] = base64.StdEncoding.EncodeToString(ca)
	u, err := url.Parse(login.Host)
	if err != nil {
		return fmt.Errorf("the kubeconfig's server: %w", err)
	}
	d.Parameters["TLSServerName"] = cmp.Or(login.ServerName, u.Hostname())
	d.find(change.OK, "endpoint", fmt.Sprintf("%s, whose certificate is of the cluster's own CA, for %s", login.Host, d.Parameters["TLSServerName"]), "")
	return nil
}

// network says whether a function outside of the VPC could reach the API server.
func (d *Discovery) network(ctx context.Context, server string) {
	u, err := url.Parse(server)
	if err != nil {
		return
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	const inside = "put the function into the VPC: --set SubnetIds=… --set SecurityGroupIds=…; docs/deploying.md says which"
	switch {
	case err != nil:
		d.find(change.Warn, "network", u.Hostname()+" has no address here: the name may be in a private zone", inside)
	case slices.ContainsFunc(addresses, netip.Addr.IsLoopback):
		d.find(change.Warn, "network", u.Hostname()+" is this machine: it is a tunnel, or a test", "--set Server=… with the address that the function is to use")
	case !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !a.IsPrivate() }):
		d.find(change.Warn, "network", fmt.Sprintf("%s has private addresses only: a function outside of the VPC cannot reach it", u.Hostname()), inside)
	default:
		d.find(change.OK, "network", u.Hostname()+" has a public address; whether it lets Lambda in, kops-spot check tells", "")
	}
}

// oldest is the first minor version of Kubernetes 1 that has policy/v1.
const oldest = 22

func (d *Discovery) version(ctx context.Context, cluster *kubeadmin.Client) error {
	v, err := cluster.Version(ctx)
	if err != nil {
		return err
	}
	parts := strings.Split(strings.TrimPrefix(v, "v"), ".")
	minor := 0
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1]) // what is no number is new
	}
	if parts[0] == "1" && minor > 0 && minor < oldest {
		d.find(change.Warn, "kubernetes", v+" is older than 1.22: pods are evicted by policy/v1beta1, best effort", "")
		return nil
	}
	d.find(change.OK, "kubernetes", v, "")
	return nil
}

// other is somebody else who handles interruptions or makes nodes.
type other struct{ image, name, meaning, advice string }

var known = []other{
	{"aws-node-termination-handler", "aws-node-termination-handler", "it cordons and evicts too, which does no harm; it asks for no replacement, and never past a budget",
		"once kops-spot acts, set spec.cloudProvider.aws.nodeTerminationHandler.enabled: false, and kops update cluster"},
	{"karpenter", "Karpenter", "the function has it replace its nodes by deleting their NodeClaims, where it may",
		"--karpenter lets the function do that"},
	{"cluster-autoscaler", "cluster-autoscaler", "it makes nodes for pods that have none; the function asks the node's group at once, and does not wait for it", ""},
	{"castai/spot-handler", "CAST AI's spot-handler", "it tells CAST AI of interruptions from the node; the function tells it too, with --set CASTAICluster=… and CASTAIKey=…", ""},
}

// others finds by their images who else is there.
func (d *Discovery) others(ctx context.Context, cluster *kubeadmin.Client) error {
	found := map[string]string{}
	for _, kind := range []kubeadmin.Ref{{APIVersion: "apps/v1", Kind: "Deployment", Resource: "deployments"}, {APIVersion: "apps/v1", Kind: "DaemonSet", Resource: "daemonsets"}} {
		all, err := cluster.List(ctx, kind)
		if err != nil {
			return err
		}
		for _, o := range all {
			for _, k := range known {
				if hasImage(o, k.image) {
					found[k.name] = kind.Kind + " " + o.Text("metadata", "namespace") + "/" + o.Text("metadata", "name")
				}
			}
		}
	}
	for _, k := range known {
		where, there := found[k.name]
		if !there {
			continue
		}
		level := change.OK
		if k.advice != "" {
			level = change.Warn
		}
		d.find(level, k.name, where+": "+k.meaning, k.advice)
	}
	return nil
}

func hasImage(o kubeadmin.Object, image string) bool {
	for _, c := range o.List("spec", "template", "spec", "containers") {
		m, _ := c.(map[string]any)
		if text, _ := m["image"].(string); strings.Contains(text, image) {
			return true
		}
	}
	return false
}
