package install

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// NetworkAPI is what CheckNetwork calls.
type NetworkAPI interface {
	Subnets(ctx context.Context, vpc string) ([]awsadmin.Subnet, error)
	RouteTables(ctx context.Context, vpc string) ([]awsadmin.RouteTable, error)
	Endpoints(ctx context.Context, vpc string) ([]awsadmin.Endpoint, error)
	HTTPSSources(ctx context.Context, vpc string) (map[string][]string, error)
}

// vpcNetwork is what CheckNetwork has read.
type vpcNetwork struct {
	cidrs     []netip.Prefix // of the function's subnets
	groups    []string       // the function's security groups
	tables    []awsadmin.RouteTable
	endpoints []awsadmin.Endpoint
	sources   map[string][]string
}

// CheckNetwork checks whether a function with these stack parameters could connect to the AWS services that it calls,
// and to CAST AI. A function in a VPC has no public address: it needs a NAT gateway or another way out of the VPC, or
// an interface endpoint of each service.
func CheckNetwork(ctx context.Context, api NetworkAPI, in iam.Values, parameters map[string]string) (
	change.Findings, error) {
	subnets := awsadmin.List(parameters["SubnetIds"])
	proxy, _, _ := strings.Cut(parameters["HttpsProxy"], ",")
	switch {
	case len(subnets) == 0:
		return nil, nil
	case proxy != "":
		return networkFinding(change.OK, "the function connects through the proxy "+proxy+"; kops-spot check tests it", ""), nil
	}
	n, err := readNetwork(ctx, api, in.VPC, subnets)
	switch {
	case errors.Is(err, awsadmin.ErrDenied):
		return networkFinding(change.Warn, "could not check the routes of the subnets: "+err.Error(),
			"kops-spot check tests the connections after the installation"), nil
	case err != nil:
		return nil, err
	}
	n.groups = awsadmin.List(parameters["SecurityGroupIds"])
	return n.check(in, subnets, services(parameters), parameters["CASTAICluster"] != ""), nil
}

func networkFinding(level change.Level, detail, advice string) change.Findings {
	return change.Findings{{Level: level, Name: "network", Detail: detail, Advice: advice}}
}

func readNetwork(ctx context.Context, api NetworkAPI, vpc string, subnets []string) (n vpcNetwork, err error) {
	all, err := api.Subnets(ctx, vpc)
	if err != nil {
		return n, err
	}
	for _, s := range all {
		if cidr, err := netip.ParsePrefix(s.CIDR); err == nil && slices.Contains(subnets, s.ID) {
			n.cidrs = append(n.cidrs, cidr)
		}
	}
	if n.tables, err = api.RouteTables(ctx, vpc); err != nil {
		return n, err
	}
	if n.endpoints, err = api.Endpoints(ctx, vpc); err != nil {
		return n, err
	}
	n.sources, err = api.HTTPSSources(ctx, vpc)
	return n, err
}

// services returns the AWS services that the function needs with these settings. Not KMS: Secrets Manager and Systems
// Manager decrypt for it. Not SQS or CloudWatch Logs: Lambda calls them. Not STS: that only explains a 401. Without
// events, only the notifications are missing.
func services(parameters map[string]string) []string {
	all := []string{"ec2", "autoscaling", "events"}
	for _, name := range []string{"Login", "CA", "CASTAIKey"} {
		service, _, _ := strings.Cut(parameters[name], ":")
		if (service == "secretsmanager" || service == "ssm") && !slices.Contains(all, service) {
			all = append(all, service)
		}
	}
	return all
}

func (n vpcNetwork) check(in iam.Values, subnets, services []string, castai bool) (found change.Findings) {
	var reasons []string
	level := change.Fail
	for _, subnet := range subnets {
		if why, known := n.noWayOut(subnet); why != "" {
			reasons = append(reasons, "subnet "+subnet+" has "+why)
			if !known {
				level = change.Warn
			}
		}
	}
	if len(reasons) == 0 {
		return networkFinding(change.OK, "the subnets have a route out of the VPC", "")
	}
	private := strings.Join(reasons, ", and ")
	var missing, commands []string
	for _, service := range services {
		switch e, ok := n.endpoint(in.Region, service); {
		case !ok:
			missing = append(missing, service)
			commands = append(commands, change.Command("aws", "ec2", "create-vpc-endpoint",
				"--vpc-endpoint-type", "Interface", "--vpc-id", in.VPC,
				"--service-name", "com.amazonaws."+in.Region+"."+service, "--private-dns-enabled", "--subnet-ids")+" "+
				strings.Join(subnets, " ")+" --security-group-ids … --region "+in.Region)
		case !e.PrivateDNS:
			missing = append(missing, service+" with private DNS")
			commands = append(commands, change.Command("aws", "ec2", "modify-vpc-endpoint", "--vpc-endpoint-id", e.ID,
				"--private-dns-enabled", "--region", in.Region))
		case !n.admits(e):
			found = append(found, networkFinding(onlyNotifies(change.Fail, service),
				"the security groups of the endpoint "+e.ID+" for "+service+" do not allow port 443 from the function",
				change.Command("aws", "ec2", "authorize-security-group-ingress", "--protocol", "tcp", "--port", "443",
					"--group-id", first(e.Groups), "--source-group", first(n.groups), "--region", in.Region))...)
		}
	}
	if len(missing) > 0 {
		found = append(found, networkFinding(onlyNotifies(level, missing...),
			private+"; the VPC has no interface endpoint for "+strings.Join(missing, ", "),
			"choose subnets with a NAT gateway, set HttpsProxy, or create the endpoints, in a security group that allows "+
				"port 443 from "+strings.Join(n.groups, " and ")+":\n"+strings.Join(commands, "\n"))...)
	}
	if castai {
		found = append(found, networkFinding(level, private+"; CAST AI's API has no interface endpoint",
			"choose subnets with a NAT gateway, or set HttpsProxy")...)
	}
	if len(found) == 0 {
		found = networkFinding(change.OK, "the VPC has interface endpoints for "+strings.Join(services, ", "), "")
	}
	return found
}

// onlyNotifies returns the level, or a warning if all that is missing serves notifications.
func onlyNotifies(level change.Level, missing ...string) change.Level {
	if slices.ContainsFunc(missing, func(service string) bool { return !strings.HasPrefix(service, "events") }) {
		return level
	}
	return change.Warn
}

// first returns the first element; empty if there is none.
func first(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// noWayOut returns why a function in the subnet cannot leave the VPC; empty if it can. It is not known if there are
// routes to other networks, which may have endpoints or a way out.
func (n vpcNetwork) noWayOut(subnet string) (why string, known bool) {
	i := slices.IndexFunc(n.tables, func(t awsadmin.RouteTable) bool { return slices.Contains(t.Subnets, subnet) })
	if i < 0 {
		i = slices.IndexFunc(n.tables, func(t awsadmin.RouteTable) bool { return t.Main })
	}
	if i < 0 {
		return "no route table", true
	}
	why, known = "no default route", true
	for _, r := range n.tables[i].Routes {
		switch {
		case r.To == "0.0.0.0/0" && r.Broken:
			why = "a default route to " + r.Via + ", which no longer exists"
		case r.To == "0.0.0.0/0" && strings.HasPrefix(r.Via, "igw-"):
			why = "only the internet gateway " + r.Via + ", which needs a public address, and a function has none"
		case r.To == "0.0.0.0/0":
			return "", true
		case !r.Broken && !strings.HasPrefix(r.Via, "igw-") && !strings.HasPrefix(r.Via, "vpce-"): // a gateway endpoint
			known = false
		}
	}
	return why, known
}

// endpoint returns the best interface endpoint of a service. In some regions, the name of a service begins with cn.com.
func (n vpcNetwork) endpoint(region, service string) (best awsadmin.Endpoint, ok bool) {
	for _, e := range n.endpoints {
		if e.Available && strings.HasSuffix(e.Service, ".amazonaws."+region+"."+service) && (!ok || e.PrivateDNS) {
			best, ok = e, true
		}
	}
	return best, ok
}

// admits reports whether the endpoint's security groups let the function connect. It assumes so for prefix lists.
func (n vpcNetwork) admits(e awsadmin.Endpoint) bool {
	admitted := func(source string) bool {
		cidr, err := netip.ParsePrefix(source)
		outside := func(s netip.Prefix) bool { return cidr.Bits() > s.Bits() || !cidr.Contains(s.Addr()) }
		return slices.Contains(n.groups, source) || strings.HasPrefix(source, "pl-") ||
			err == nil && !slices.ContainsFunc(n.cidrs, outside)
	}
	return slices.ContainsFunc(e.Groups, func(g string) bool { return slices.ContainsFunc(n.sources[g], admitted) })
}
