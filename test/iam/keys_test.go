package iam_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// A keyRule says what a condition key changes for the rows of the table that it applies to. Every key that AWS documents
// for a row's request and that has no rule must change nothing.
type keyRule struct {
	key     string   // with the tag key; <own> and <other> are clusters
	rows    []string // actor, action and kind, as in "user ec2:RunInstances image"; * matches anything but a blank
	without bool     // allowed without the key
	bad     func(own, other iam.Values) []any
	good    func(own, other iam.Values) []any
}

// values are the same for all clusters.
func values(all ...any) func(own, other iam.Values) []any {
	return func(own, other iam.Values) []any { return all }
}

func otherCluster(own, other iam.Values) []any {
	return []any{other.Cluster, strings.ToUpper(own.Cluster), "x" + own.Cluster, ""}
}

func otherVPC(own, other iam.Values) []any {
	vpc := func(region, account, id string) string {
		return "arn:aws:ec2:" + region + ":" + account + ":vpc/" + id
	}
	return []any{vpc(own.Region, own.Account, other.VPC), vpc(otherRegion, own.Account, own.VPC),
		vpc(own.Region, otherAccount, own.VPC), strings.ToUpper(vpc(own.Region, own.Account, own.VPC))}
}

// The rows about resources by their tag, about instances and groups of the control plane, and about tags.
var (
	taggedRows = []string{"user ec2:*Instances instance", "user ec2:ModifyInstanceAttribute instance",
		"* autoscaling:* group", "* ec2:*Tags instance", "user ec2:*Tags volume", "user ec2:*Tags network-interface",
		"user ec2:*Tags security-group", "user ec2:*Tags key-pair", "user ec2:* security-group",
		"user ec2:DeleteKeyPair key-pair", "user ec2:RunInstances launch-template", "user ec2:RunInstances snapshot"}
	workerRows = []string{"user ec2:*Instances instance", "user ec2:ModifyInstanceAttribute instance",
		"user autoscaling:* group", "function autoscaling:DetachInstances group"}
	createdRows  = []string{"user ec2:RunInstances new*instance", "user ec2:Create* new*", "user ec2:ImportKeyPair new*"}
	tagNewRows   = []string{"user ec2:CreateTags new*"}
	tagLaterRows = []string{"user ec2:*Tags instance", "user ec2:*Tags volume", "user ec2:*Tags network-interface",
		"user ec2:*Tags security-group", "user ec2:*Tags key-pair"}
	vpcRows = []string{"user ec2:RunInstances subnet", "user ec2:RunInstances new*interface",
		"user ec2:RunInstances security-group", "user ec2:*Security* security-group"}
	updateRows = []string{"user autoscaling:UpdateAutoScalingGroup group"}
)

var keyRules = slices.Concat([]keyRule{
	{key: "aws:ResourceTag/KubernetesCluster", rows: taggedRows, bad: otherCluster},
	{key: "aws:ResourceTag/KubernetesCluster", rows: []string{"user ec2:RunInstances image",
		"user ec2:RunInstances key-pair"}, without: true, bad: otherCluster},
	{key: "aws:ResourceTag/kubernetes.io/cluster/<own>", rows: []string{"user ec2:RunInstances subnet"},
		bad: values(), good: values("owned", "shared")},
	{key: "ec2:Vpc", rows: vpcRows, bad: otherVPC},

	// Creation.
	{key: "aws:RequestTag/KubernetesCluster", rows: createdRows, bad: otherCluster},
	{key: "ec2:CreateAction", rows: tagNewRows, bad: values("CreateVolume", "CreateSnapshot", "runinstances")},
	{key: "aws:TagKeys", rows: tagNewRows, without: true,
		bad: func(own, other iam.Values) (all []any) {
			for _, key := range []string{"kubernetescluster", "kubernetes.io/cluster/" + other.Cluster,
				"kubernetes.io/cluster/" + own.Cluster + ".org", "k8s.io/role/control-plane", "k8s.io/role/master",
				"k8s.io/role/apiserver", "k8s.io/role/api-server", "k8s.io/role/bastion", "k8s.io/etcd/main"} {
				all = append(all, []string{"KubernetesCluster", "Name", key})
			}
			return all
		},
		good: func(own, other iam.Values) []any {
			return []any{[]string{"KubernetesCluster"}, append([]string{"KubernetesCluster", "Name", "owner", "Kind", "k8s-team",
				"kubernetes.io/cluster/" + own.Cluster, "cast:managed-by", "7"}, keysOfKops...)}
		}},
	{key: "aws:TagKeys", rows: []string{"user ec2:CreateTags new*instance"}, without: true,
		bad: func(own, other iam.Values) (all []any) {
			for _, key := range append(caseVariants("KubernetesCluster"), caseVariants("kubernetes.io/cluster/"+own.Cluster)...) {
				all = append(all, []string{"KubernetesCluster", "Name", key})
			}
			return all
		}},
	{key: "ec2:NetworkInterfaceID", rows: []string{"user ec2:RunInstances new*interface"}, without: true,
		bad: values("eni-0123456789abcdef0", "eni-01234567")},

	// Tags of existing resources.
	{key: "aws:RequestTag/KubernetesCluster", rows: tagLaterRows, without: true,
		bad: func(own, other iam.Values) []any { return []any{own.Cluster, other.Cluster, ""} }},
	{key: "aws:TagKeys", rows: tagLaterRows,
		bad: func(own, other iam.Values) (all []any) {
			for _, key := range []string{"KubernetesCluster", "kubernetes.io/cluster/" + own.Cluster,
				"kubernetes.io/cluster/" + other.Cluster, "cast:interrupted-at", "cast:managed-by", "kops.k8s.io/instancegroup",
				"k8s.io/role/control-plane", "k8s.io/role/master", "k8s.io/role/apiserver", "k8s.io/role/bastion",
				"k8s.io/role/node", "k8s.io/etcd/main"} {
				all = append(all, []string{"team", key})
			}
			return all
		},
		good: values([]string{"team"}, []string{"Name", "k8s-team"})},
	{key: "aws:TagKeys", rows: []string{"function ec2:CreateTags instance"},
		bad: func(own, other iam.Values) (all []any) {
			for _, key := range []string{"KubernetesCluster", "kubernetes.io/cluster/" + own.Cluster, "cast-cluster", "Name",
				"CAST:interrupted-at", "kops.k8s.io/instancegroup", "k8s.io/role/control-plane"} {
				all = append(all, []string{"cast:interrupted-at", key})
			}
			return all
		},
		good: values([]string{"cast:interrupted-at"}, []string{"kops.k8s.io/detached-from-asg"})},

	// The control plane, and what the workers run.
	{key: "ec2:Attribute", rows: []string{"user ec2:ModifyInstanceAttribute instance"}, without: true,
		bad: values("UserData", "userData", "USERDATA"), good: values("InstanceType", "SourceDestCheck")},
	{key: "ec2:Attribute/UserData", rows: []string{"user ec2:ModifyInstanceAttribute instance"}, without: true,
		bad: values("#cloud-boothook", "")},
	{key: "autoscaling:LaunchConfigurationName", rows: updateRows, without: true, bad: values("theirs")},
	{key: "autoscaling:LaunchTemplateVersionSpecified", rows: updateRows, without: true, bad: values("true", "false")},
	{key: "autoscaling:VPCZoneIdentifiers", rows: updateRows, without: true,
		bad: func(own, other iam.Values) []any { return []any{own.Subnets, other.Subnets} }},

	// Roles.
	{key: "iam:PassedToService", rows: []string{"user iam:PassRole *role*"},
		bad: values("", "states.amazonaws.com", "autoscaling.amazonaws.com", "events.amazonaws.com", "EC2.amazonaws.com")},
	{key: "iam:PassedToService", rows: []string{"user iam:PassRole node*role", "user iam:PassRole role*"},
		bad: values("lambda.amazonaws.com"), good: values("ec2.amazonaws.com.cn")},
	{key: "iam:PassedToService", rows: []string{"user iam:PassRole function's*role"}, bad: values("ec2.amazonaws.com")},
	{key: "iam:PermissionsBoundary", rows: []string{"user iam:*Role* role*"},
		bad: func(own, other iam.Values) []any {
			return []any{"arn:aws:iam::" + account + ":policy/PowerUsers", own.PolicyARN(iam.ManagedPolicy),
				"arn:aws:iam::" + otherAccount + ":policy/CASTKopsBoundary",
				"arn:aws:iam::" + account + ":policy/castkopsboundary"}
		}},
	{key: "iam:PolicyARN", rows: []string{"user iam:*achRolePolicy role*"}, without: true,
		bad: func(own, other iam.Values) []any {
			return []any{"arn:aws:iam::aws:policy/AdministratorAccess", "arn:aws:iam::aws:policy/IAMFullAccess",
				own.PolicyARN(iam.ManagedPolicy), own.PolicyARN(iam.ClusterPolicy)}
		}},
	{key: "iam:PolicyARN", rows: []string{"installer iam:*achUserPolicy user", "installer iam:*achRolePolicy function's*role"},
		bad: func(own, other iam.Values) []any {
			return []any{"arn:aws:iam::aws:policy/AdministratorAccess", other.PolicyARN(iam.ClusterPolicy),
				own.PolicyARN(iam.Boundary)}
		}},

	// The function and its rules.
	{key: "lambda:Principal", rows: []string{"user lambda:*Permission function"}, without: true,
		bad: values("*", otherAccount, "arn:aws:iam::"+otherAccount+":root", "s3.amazonaws.com", "Events.amazonaws.com")},
	{key: "lambda:VpcIds", rows: []string{"user lambda:*Function* function"}, without: true,
		bad: func(own, other iam.Values) []any { return []any{own.VPC, other.VPC} }},
	{key: "lambda:SubnetIds", rows: []string{"user lambda:*Function* function"}, without: true,
		bad: func(own, other iam.Values) []any { return []any{own.Subnets, other.Subnets} }},
	{key: "lambda:SecurityGroupIds", rows: []string{"user lambda:*Function* function"}, without: true,
		bad: func(own, other iam.Values) []any { return []any{own.SecurityGroups, other.SecurityGroups} }},
	{key: "lambda:SubnetIds", rows: []string{"user lambda:*Function* function*in*VPC"},
		bad: func(own, other iam.Values) []any { return both(own.Subnets, other.Subnets) }},
	{key: "lambda:SecurityGroupIds", rows: []string{"user lambda:*Function* function*in*VPC"},
		bad: func(own, other iam.Values) []any { return both(own.SecurityGroups, other.SecurityGroups) }},
	{key: "events:TargetArn", rows: []string{"user events:* rule"}, without: true,
		bad: func(own, other iam.Values) []any {
			others := []string{other.FunctionARN(), other.Queues[0], strings.ToUpper(own.FunctionARN()),
				"arn:aws:events:" + region + ":" + account + ":target/terminate-instance"}
			var all []any
			for _, o := range others {
				all = append(all, both([]string{own.FunctionARN()}, []string{o})...)
			}
			return all
		}},
	{key: "events:source", rows: []string{"function events:PutEvents *bus"},
		bad: values("", "aws.ec2", "kops-spot.rehearsal", "kops-spot.self-check", "KOPS-SPOT")},
	{key: "kms:ViaService", rows: []string{"function kms:Decrypt key"},
		bad:  values("", "s3."+region+".amazonaws.com", "secretsmanager."+otherRegion+".amazonaws.com"),
		good: values("ssm." + region + ".amazonaws.com")},
	{key: "lambda:SourceFunctionArn", rows: []string{"Lambda ec2:*NetworkInterface *", "Lambda ec2:*PrivateIpAddresses *"},
		without: true, bad: func(own, other iam.Values) []any { return []any{own.FunctionARN(), other.FunctionARN()} }},
}, roleRules())

// roleRules say that tags of the control plane's and API servers' roles take instances and groups away.
func roleRules() (all []keyRule) {
	for _, role := range []string{"control-plane", "master", "apiserver", "api-server"} {
		all = append(all, keyRule{key: "aws:ResourceTag/k8s.io/role/" + role, rows: workerRows, without: true,
			bad: values("1", "")})
	}
	return all
}

// both returns the other's values alone, and together with its own.
func both(own, other []string) []any { return []any{other, slices.Concat(own, other)} }

// caseVariants are spellings of a tag key that differ from it in case.
func caseVariants(key string) (all []string) {
	flip := func(s string) string {
		if s == strings.ToLower(s) {
			return strings.ToUpper(s)
		}
		return strings.ToLower(s)
	}
	candidates := []string{strings.ToUpper(key), strings.ToLower(key)}
	for i := range key {
		candidates = append(candidates, key[:i]+flip(key[i:i+1])+key[i+1:], flip(key[:i])+key[i:])
	}
	for _, c := range candidates {
		if c != key && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// named returns the rule's key for a cluster.
func (r keyRule) named(own, other iam.Values) string {
	return strings.NewReplacer("<own>", own.Cluster, "<other>", other.Cluster).Replace(r.key)
}

// match returns the pattern of the rule that a row's action matches; empty for none.
func (r keyRule) match(a actor, action string, on kind) string {
	is := strings.Join([]string{a.role(), action, strings.ReplaceAll(on.name, " ", "_")}, "/")
	i := slices.IndexFunc(r.rows, func(pattern string) bool {
		ok, err := path.Match(strings.ReplaceAll(pattern, " ", "/"), is)
		return ok && err == nil
	})
	if i < 0 {
		return ""
	}
	return r.rows[i]
}

// role is the actor's role in the patterns of keyRule.rows.
func (a actor) role() string {
	role, _, _ := strings.Cut(strings.TrimPrefix(a.name, "the "), " ")
	return role
}

// TestEveryConditionKey asks about each action of the table with each condition key that AWS documents for it: absent,
// with the other cluster's value, in another case, and as far as the rules have them with other good and bad values. Only
// the keys of the rules change an answer.
func TestEveryConditionKey(t *testing.T) {
	t.Parallel()
	own, other := clusterA, clusterB
	used := map[string]bool{}
	var calls []call
	for _, s := range subjects(own) {
		for _, r := range s.rows {
			for _, action := range r.actions {
				for key, generic := range documentedKeys(t, action, r, own, other) {
					calls = append(calls, s.cells(r, action, key, generic, own, other, used)...)
				}
			}
		}
	}
	prove(t, calls)
	t.Logf("%d requests", len(calls))
	for _, r := range keyRules {
		for _, pattern := range r.rows {
			if !used[r.key+" "+pattern] {
				t.Errorf("no row of the table with the key %s matches %q", r.key, pattern)
			}
		}
	}
}

// documentedKeys returns the condition keys that AWS documents for the action on the row's resource, with each tag key of
// the rules where a tag key follows. The value is the key in AWS's form.
func documentedKeys(t *testing.T, action string, r row, own, other iam.Values) map[string]string {
	t.Helper()
	a := described(t)[action]
	documented := slices.Clone(a.Keys)
	for _, typ := range a.Types {
		if typ.covers(r.on.arn(thingOf(own))) {
			documented = append(documented, typ.Keys...)
		}
	}
	documented = append(documented, "lambda:sourcefunctionarn")
	all := map[string]string{}
	for _, g := range documented {
		if strings.HasPrefix(g, "secretsmanager:resource") || strings.HasPrefix(g, "events:systemmetadata") {
			continue // the simulator does not know them, and no document uses them
		}
		if !strings.HasSuffix(g, "/") {
			all[g] = g
			continue
		}
		all[g+"team"] = g
		for _, rule := range keyRules {
			if name := rule.named(own, other); generic(name) == g {
				all[name] = g
			}
		}
	}
	return all
}

// cells are the calls about one key. used records the rules' patterns that apply.
func (s subject) cells(r row, action, key, documented string, own, other iam.Values, used map[string]bool) []call {
	on := r.on.arn(thingOf(own))
	base := facts{}
	maps.Copy(base, s.actor.facts)
	maps.Copy(base, r.of(thingOf(own)))
	has, is := "", any(nil) // the key and its value in the base, if any
	for k, v := range base {
		if strings.EqualFold(k, key) {
			has, is = k, v
		}
	}
	var calls []call
	try := func(key string, value any, allowed bool) {
		f := maps.Clone(base)
		delete(f, has)
		if value != nil {
			f[key] = value
		}
		calls = append(calls, call{fmt.Sprintf("%s: %s on %s, where %s is %q", s.name, action, r.on.name, key, value),
			[]request{s.actor.exactly(action, on, f)}, allowed})
	}
	if is != nil {
		try(strings.ToUpper(key), is, true)
	}
	none := true
	for _, rule := range keyRules {
		pattern := rule.match(s.actor, action, r.on)
		if pattern == "" || !strings.EqualFold(rule.named(own, other), key) {
			continue
		}
		none, used[rule.key+" "+pattern] = false, true
		try(key, nil, rule.without)
		for _, value := range rule.bad(own, other) {
			try(key, value, false)
		}
		if rule.good != nil {
			for _, value := range rule.good(own, other) {
				try(key, value, true)
			}
		}
	}
	if none && documented != "lambda:sourcefunctionarn" { // that is the actor
		for _, value := range []any{nil, other.Cluster, strings.ToUpper(own.Cluster)} {
			try(key, value, true)
		}
	}
	return calls
}
