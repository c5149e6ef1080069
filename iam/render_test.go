package iam

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func testValues() Values {
	return Values{
		Partition: "aws", Region: "eu-west-1", Account: "123456789012", Cluster: "prod.example.com", VPC: "vpc-0123456789abcdef0",
		FunctionRole: FunctionRole, NodeRoles: []string{"nodes.prod.example.com"},
		Secrets:    []string{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:cast-kops/prod.example.com/token-AbCdEf"},
		Parameters: []string{"arn:aws:ssm:eu-west-1:123456789012:parameter/cast/token"},
		Keys:       []string{"arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"},
		Queues:     []string{"arn:aws:sqs:eu-west-1:123456789012:failures"},
		Subnets:    []string{"subnet-0123456789abcdef0"}, SecurityGroups: []string{"sg-01234567"},
		StateStore: "state-store/kops",
	}
}

// longestValues makes the documents as long as possible, with twelve roles of nodes.
func longestValues() Values {
	v := testValues()
	v.Partition, v.Region = "aws-us-gov", "us-gov-east-1"
	v.Cluster = strings.Repeat("a", 48) + "." + strings.Repeat("b", longestCluster-49)
	v.FunctionRole, v.NodeRoles = strings.Repeat("r", longestName), nil
	for range 12 {
		v.NodeRoles = append(v.NodeRoles, strings.Repeat("n", longestName))
	}
	arn := func(service, name string) []string { return []string{v.arn(service, v.Region, name)} }
	v.Secrets, v.Parameters = arn("secretsmanager", "secret:"+strings.Repeat("s", 519)), arn("ssm", "parameter/"+strings.Repeat("p", 1011))
	v.Keys, v.Queues = arn("kms", "key/mrk-1234567890abcdef1234567890abcdef"), arn("sqs", strings.Repeat("q", 80))
	for range 5 {
		v.Subnets, v.SecurityGroups = append(v.Subnets, v.Subnets[0]), append(v.SecurityGroups, "sg-0123456789abcdef0")
	}
	return v
}

func TestRender(t *testing.T) {
	china := testValues()
	china.Partition, china.Region = "aws-cn", "cn-northwest-1"
	china.Secrets, china.Parameters, china.Keys, china.Queues = nil, nil, nil, nil
	for name, v := range map[string]Values{"common": testValues(), "China": china, "longest": longestValues()} {
		roleSize := 0
		for _, d := range Documents {
			text, err := Render(d, v)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if !json.Valid(text) || strings.ContainsAny(string(text), "<>") || !strings.HasSuffix(string(text), "}\n") {
				t.Errorf("%s: %s is incomplete:\n%s", name, d.Name, text)
			}
			if v.Partition != "aws" && strings.Contains(string(text), "arn:aws:") {
				t.Errorf("%s: %s has an ARN of another partition", name, d.Name)
			}
			if complaint := badSids(text); complaint != "" {
				t.Errorf("%s: %s: %s", name, d.Name, complaint)
			}
			if n := Size(text); n > withSpare(d.limit) {
				t.Errorf("%s: %s has %d characters of %d: less than 5 %% to spare", name, d.Name, n, d.limit)
			}
			if slices.Contains([]string{HandlerPolicy.Name, RuntimePolicy.Name, NetworkPolicy.Name}, d.Name) {
				roleSize += Size(text)
			}
		}
		if roleSize > withSpare(roleInlineLimit) {
			t.Errorf("%s: the inline policies of the function's role have %d characters together", name, roleSize)
		}
	}
}

// withSpare returns what a document may have of a limit, so that the next statement or name fits too.
func withSpare(limit int) int { return limit * 95 / 100 }

// badSids says why IAM would refuse the Sids: they must be unique, and have only letters and digits.
func badSids(document []byte) string {
	var policy struct{ Statement []struct{ Sid string } }
	if err := json.Unmarshal(document, &policy); err != nil {
		return err.Error()
	}
	seen := map[string]bool{}
	for _, s := range policy.Statement {
		if strings.Trim(s.Sid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return "invalid Sid " + s.Sid
		}
		if seen[s.Sid] {
			return "duplicate Sid " + s.Sid
		}
		seen[s.Sid] = true
	}
	return ""
}

func TestMalformedValues(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Document
		set  func(*Values, string)
		good string
		bad  []string
		want string
	}{
		{"partition", ManagedPolicy, func(v *Values, s string) { v.Partition = s }, "aws-iso-b", []string{"aws2", "gcp", "aws "}, "partition"},
		{"region", RestrictedPolicy, func(v *Values, s string) { v.Region = s }, "ap-southeast-4",
			[]string{"*", "eu-west", "eu-west-1a", "EU-WEST-1"}, "region"},
		{"account", Trust, func(v *Values, s string) { v.Account = s }, "000000000001",
			[]string{"12345678901", "1234567890123", "12345678901a", "*"}, "account"},
		{"cluster", RestrictedPolicy, func(v *Values, s string) { v.Cluster = s }, "a.k8s.local",
			[]string{"prod", "*.example.com", "prod.example.com\n", `p.example.com","x":"`, "${aws:username}.com", "Prod.example.com", "-a.example.com",
				"a..b", "a b.c", strings.Repeat("a", 60) + "." + strings.Repeat("b", 46)}, "cluster"},
		{"cluster, by its function", RuntimePolicy, func(v *Values, s string) { v.Cluster = s }, "a.k8s.local", []string{"*", "prod"}, "cluster"},
		{"cluster, by its user", InstallerPolicy, func(v *Values, s string) { v.Cluster = s }, "a.k8s.local", []string{"*.*", "prod"}, "cluster"},
		{"VPC", RestrictedPolicy, func(v *Values, s string) { v.VPC = s }, "vpc-01234567",
			[]string{"vpc-*", "0123456789abcdef0", "vpc-0123", "vpc-0123456789ABCDEF0"}, "VPC"},
		{"function's role", ClusterPolicy, func(v *Values, s string) { v.FunctionRole = s }, "team/CastLambdaRoleForSpot-2",
			[]string{"*", "/role", "path/", "path/*", "arn:aws:iam::123456789012:role/x", strings.Repeat("r", 65)}, "function's role"},
		{"nodes' role", ClusterPolicy, func(v *Values, s string) { v.NodeRoles = []string{"nodes", s} }, "kops/prod/nodes.a",
			[]string{"*", "", "/a", "a/", "a//b", "a/*", "a/" + strings.Repeat("r", 65)}, "nodes' role"},
		{"secret", HandlerPolicy, func(v *Values, s string) { v.Secrets = []string{s} }, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a-AbCdEf",
			[]string{"a", "*", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:*", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a",
				"arn:aws:secretsmanager:eu-west-1:210987654321:secret:a", "arn:aws-cn:secretsmanager:eu-west-1:123456789012:secret:a",
				"arn:aws:secretsmanager:eu-west-1:123456789012:secret:"}, "secret"},
		{"parameter", HandlerPolicy, func(v *Values, s string) { v.Parameters = []string{s} }, "arn:aws:ssm:eu-west-1:123456789012:parameter/a/b",
			[]string{"/a/b", "arn:aws:ssm:eu-west-1:123456789012:parameter/?"}, "parameter"},
		{"key", RuntimePolicy, func(v *Values, s string) { v.Keys = []string{s} }, "arn:aws:kms:eu-west-1:123456789012:key/a",
			[]string{"alias/a", "arn:aws:kms:eu-west-1:123456789012:alias/a"}, "key"},
		{"queue", RuntimePolicy, func(v *Values, s string) { v.Queues = []string{s} }, "arn:aws:sqs:eu-west-1:123456789012:q.fifo",
			[]string{"q", "arn:aws:sns:eu-west-1:123456789012:q"}, "queue"},
		{"subnet", NetworkPolicy, func(v *Values, s string) { v.Subnets = []string{s} }, "subnet-01234567", []string{"subnet-*", "vpc-01234567"}, "subnet"},
		{"function's subnet", ClusterPolicy, func(v *Values, s string) { v.Subnets = []string{s} }, "subnet-01234567", []string{"*"}, "subnet"},
		{"security group", NetworkPolicy, func(v *Values, s string) { v.SecurityGroups = []string{s} }, "sg-01234567",
			[]string{"*", "default"}, "security group"},
		{"state store", InstallerPolicy, func(v *Values, s string) { v.StateStore = s }, "bucket",
			[]string{"s3://bucket", "bucket/*", "bucket/", "Bucket"}, "state store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := testValues()
			if c.set(&v, c.good); c.name == "region" || c.name == "partition" {
				v.Secrets = nil
			}
			if _, err := Render(c.in, v); err != nil {
				t.Errorf("%q is refused: %v", c.good, err)
			}
			for _, bad := range c.bad {
				c.set(&v, bad)
				text, err := Render(c.in, v)
				if err == nil || !strings.Contains(err.Error(), "the "+c.want+" is") || text != nil {
					t.Errorf("%q: %v", bad, err)
				}
			}
		})
	}
}

func TestMissingValues(t *testing.T) {
	for _, c := range []struct {
		in   Document
		take func(*Values)
		want string
	}{
		{ManagedPolicy, func(v *Values) { v.Partition = "" }, "rendering CASTKopsPolicyV2: the partition is missing"},
		{ManagedPolicy, func(v *Values) { v.Account = "" }, "the account is missing"},
		{RestrictedPolicy, func(v *Values) { v.Region = "" }, "the region is missing"},
		{RestrictedPolicy, func(v *Values) { v.Cluster = "" }, "the cluster is missing"},
		{RuntimePolicy, func(v *Values) { v.Cluster = "" }, "the cluster is missing"},
		{RestrictedPolicy, func(v *Values) { v.VPC = "" }, "the VPC is missing"},
		{ClusterPolicy, func(v *Values) { v.FunctionRole = "" }, "the function's role is missing"},
		{NetworkPolicy, func(v *Values) { v.Subnets = nil }, "the subnet is missing"},
		{NetworkPolicy, func(v *Values) { v.SecurityGroups = nil }, "the security group is missing"},
		{Trust, func(v *Values) { v.Account = "" }, "rendering the trust policy: the account is missing"},
	} {
		v := testValues()
		c.take(&v)
		if _, err := Render(c.in, v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
}

func TestOptionalStatements(t *testing.T) {
	v := testValues()
	v.NodeRoles, v.Secrets, v.Parameters, v.Keys, v.Queues, v.StateStore = nil, nil, nil, nil, nil, ""
	v.Subnets, v.SecurityGroups = nil, nil
	for d, gone := range map[*Document][]string{
		&ClusterPolicy:   {"ec2.amazonaws.com", "ConfigureItInItsSubnets"},
		&HandlerPolicy:   {"secretsmanager:", "ssm:"},
		&RuntimePolicy:   {"kms:", "sqs:"},
		&InstallerPolicy: {"s3:"},
	} {
		without, err := Render(*d, v)
		if err != nil {
			t.Fatal(err)
		}
		all, err := Render(*d, testValues())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range gone {
			if strings.Contains(string(without), s) || !strings.Contains(string(all), s) {
				t.Errorf("%s: %q does not depend on its value", d.Name, s)
			}
		}
	}
}

func TestSeveralValues(t *testing.T) {
	v := testValues()
	v.Secrets = append(v.Secrets, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ca-AbCdEf")
	v.Subnets = append(v.Subnets, "subnet-89abcdef")
	for d, want := range map[*Document]string{
		&HandlerPolicy: `"Resource":["` + v.Secrets[0] + `","` + v.Secrets[1] + `"]`,
		&NetworkPolicy: `"Resource":["arn:aws:ec2:eu-west-1:123456789012:subnet/` + v.Subnets[0] + `","arn:aws:ec2:eu-west-1:123456789012:subnet/` +
			v.Subnets[1] + `","arn:aws:ec2:eu-west-1:123456789012:security-group/sg-01234567",`,
	} {
		text, err := Render(*d, v)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(string(text)), ""); !strings.Contains(got, want) {
			t.Errorf("%s has no %s", d.Name, want)
		}
	}
}

func TestTooLong(t *testing.T) {
	v := longestValues()
	for range 50 {
		v.NodeRoles = append(v.NodeRoles, strings.Repeat("m", longestName))
	}
	_, err := Render(ClusterPolicy, v)
	if err == nil || !strings.Contains(err.Error(), "and IAM allows 6144: use fewer or shorter names") {
		t.Error(err)
	}
}

func TestPlaceholders(t *testing.T) {
	var used []string
	placeholders := testValues().placeholders()
	for _, d := range Documents {
		text, err := files.ReadFile(d.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inBrackets.FindAllStringSubmatch(string(text), -1) {
			if used = append(used, m[1]); placeholders[m[1]].values == nil {
				t.Errorf("%s: unknown placeholder %s", d.file, m[0])
			}
		}
	}
	for name := range placeholders {
		if !slices.Contains(used, name) {
			t.Errorf("no document uses <%s>", name)
		}
	}
	if _, err := fill([]byte(`{"Sid": "X", "Resource": "<else>"}`), testValues()); err == nil {
		t.Error("an unknown placeholder is accepted")
	}
	if _, err := finish(Trust, "2012-10-17", [][]byte{[]byte(`{"Resource": "a>b"}`)}); err == nil {
		t.Error("a bracket is accepted")
	}
}
