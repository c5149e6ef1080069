package template

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// TestDependentParameters: a parameter that requires another is rejected without it, with a message that names the
// parameter to change.
func TestDependentParameters(t *testing.T) {
	for name, c := range map[string]struct {
		given Parameters
		names string // the parameter at the start of the message; empty if accepted
	}{
		"IAM authentication without a server": {Parameters{"Server": ""}, "Server"},
		"a kubeconfig without a server":       {Parameters{"Server": "", "Login": "kubeconfig:/opt/kubeconfig"}, ""},
		"CAST AI's key without its cluster":   {Parameters{"CASTAIKey": "ssm:/k"}, "CASTAICluster"},
		"CAST AI's cluster without the key":   {Parameters{"CASTAICluster": castaiCluster}, "CASTAIKey"},
		"CAST AI's URL alone":                 {Parameters{"CASTAIURL": "https://api.eu.cast.ai"}, "CASTAIKey"},
		"subnets without security groups":     {Parameters{"SubnetIds": "subnet-01234567"}, "SecurityGroupIds"},
		"security groups without subnets":     {Parameters{"SecurityGroupIds": "sg-01234567"}, "SubnetIds"},
	} {
		t.Run(name, func(t *testing.T) {
			why := shared.Templates[byDefault].Refuses(with(c.given))
			if c.names == "" && len(why) > 0 || c.names != "" &&
				(len(why) != 1 || !strings.HasPrefix(why[0], c.names+": set it")) {
				t.Errorf("it is rejected because of %q, want %q", why, c.names)
			}
		})
	}
}

// TestMalformedParameters covers parameters that are not settings.
func TestMalformedParameters(t *testing.T) {
	vpc := Parameters{"SubnetIds": "subnet-01234567", "SecurityGroupIds": "sg-01234567"}
	for parameter, c := range map[string]struct {
		beside    Parameters
		good, bad []string
	}{
		"ShortName": {good: []string{iam.Name(cluster), iam.Name("a.b"),
			iam.Name(strings.Repeat("a", 50) + ".com")},
			bad: []string{"", cluster, "prod-example-com", "prod-example-com-7405B025", "-a-7405b0253a21",
				iam.Name(cluster) + "0"}},
		"FunctionRole": {good: []string{iam.FunctionRole, iam.FunctionRoleName(cluster), existingRole,
			"arn:aws-cn:iam::123456789012:role/team/x"},
			bad: []string{"", "a b", "path/name", strings.Repeat("a", 65), "arn:aws:iam::123456789012:user/x",
				"arn:aws:iam::1:role/x", existingRole + " "}},
		"PermissionsBoundary": {good: []string{"", boundary, "arn:aws:iam::aws:policy/ReadOnlyAccess"},
			bad: []string{"Developers", existingRole, boundary + " "}},
		"SecretArns": {good: []string{"", secretARN + "a-B1c2D3", secretARN + "a-B1c2D3," + secretARN +
			"b-B1c2D3", secretARN + "a, " + secretARN + "b"}, bad: []string{"cast-kops/x", secretARN + "*", secretARN + "a " + secretARN + "b",
			parameterARN + "x"}},
		"ParameterArns": {good: []string{"", parameterARN + "ca", parameterARN + "ca," + parameterARN + "key"},
			bad: []string{"/cast-kops/ca", parameterARN + "*", parameterARN + "ca,x", secretARN + "a"}},
		"KeyArns": {good: []string{"", keyARN, keyARN + "," + keyARN},
			bad: []string{"alias/x", "*", keyARN + ",*", keyARN + "/*"}},
		"SubnetIds": {beside: vpc, good: []string{"subnet-01234567",
			"subnet-0123456789abcdef0,subnet-0123456789abcdef1,subnet-0123456789abcdef2"},
			bad: []string{"subnet-1", "subnet-01234567,", "subnet-01234567, subnet-01234568",
				"subnet-01234567,subnet-01234568,subnet-01234569,subnet-0123456a", "sg-01234567"}},
		"SecurityGroupIds": {beside: vpc, good: []string{"sg-01234567", "sg-01234567,sg-0123456789abcdef0"},
			bad: []string{"sg-1", "sg-01234567,", "subnet-01234567", "sg-01234567,sg-01234568,sg-01234569"}},
		"HttpsProxy": {good: []string{"", "http://proxy.example.com:3128", "https://10.0.0.1",
			"http://proxy.example.com:3128,.amazonaws.com,10.0.0.0/8,*.example.com:443"},
			bad: []string{"proxy.example.com:3128", ".amazonaws.com,http://proxy", "http://user:password@proxy:3128",
				"http://proxy/path", "http://proxy,", "http://proxy, a"}},
		"Architecture":        {good: []string{"arm64", "x86_64"}, bad: []string{"amd64", ""}},
		"ReservedConcurrency": {good: []string{"0", "1", "1000"}, bad: []string{"-1", "all"}},
		"LogRetentionDays":    {good: []string{"1", "30", "365"}, bad: []string{"0", "31"}},
		"NotifyEmail":         {good: []string{"", "people@example.com"}, bad: []string{"people", "a@b@c", "a b@c.d", "@c.d"}},
		"NotifyStarted":       {good: []string{"DISABLED", "ENABLED"}, bad: []string{"", "enabled"}},
		"NotifyUrl": {good: []string{"", "slack+https://hooks.slack.com/services/T0/B0/x", "json+https://example.com:8443/a?b=c&d=%2F;e~f",
			"teams+https://prod-12.westeurope.logic.azure.com:443/workflows/0a/triggers/manual/paths/invoke?sp=%2Fmanual&sig=a-b_c",
			"pagerduty+https://" + pagerDutyKey + "@events.pagerduty.com/v2/enqueue"},
			bad: []string{"https://hooks.slack.com/x", "mail+https://example.com", "slack+http://example.com", "slack+https://", "json+https://user@example.com",
				"json+https://example.com/a b", "json+https://example.com/\"", "json+https://example.com/a+b", "json+https://example.com/*", "json+https://example.com/%zz", pagerDutyKey,
				"pagerduty+https://events.pagerduty.com/v2/enqueue", "pagerduty+https://" + pagerDutyKey + "@example.com/v2/enqueue",
				"json+https://example.com/" + strings.Repeat("a", 2048)}},
		"AlarmTopicArn": {good: []string{"", pager}, bad: []string{"pager", pager + ".fifo,", existingRole}},
	} {
		t.Run(parameter, func(t *testing.T) {
			for _, value := range c.good {
				if why := shared.Templates[byDefault].Refuses(with(c.beside,
					Parameters{parameter: value})); len(why) > 0 {
					t.Errorf("%q is rejected: %v", value, why)
				}
			}
			for _, value := range c.bad {
				if why := shared.Templates[byDefault].Refuses(with(c.beside,
					Parameters{parameter: value})); len(why) == 0 {
					t.Errorf("%q is accepted", value)
				}
			}
		})
	}
}

// TestClusterNames: the template rejects the names that package iam rejects.
func TestClusterNames(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 50)+".", 2) + "abcd" // 106 characters
	for _, name := range []string{"a.b", cluster, "1.2", "a-b.c--d", strings.Repeat("a", 63) + ".b", long,
		"", "a", "a.", ".a", "a..b", "-a.b", "a-.b", "A.b", "a_b.c", "a.b*", "a.b ", "${x}.b", `a".b`,
		strings.Repeat("a", 64) + ".b", long + "a"} {
		_, err := iam.Render(iam.HandlerPolicy,
			iam.Values{Partition: "aws", Region: Region, Account: Account, Cluster: name})
		why := shared.Templates[byDefault].Refuses(with(Parameters{"Cluster": name}))
		if (err != nil) != (len(why) > 0) {
			t.Errorf("%q: the template rejects it because of %q, iam because of %v", name, why, err)
		}
	}
}

// TestEveryParameterIsInAGroup exactly once and has a description and a constraint description.
func TestEveryParameterIsInAGroup(t *testing.T) {
	tmpl := shared.Templates[byDefault]
	var grouped []string
	groups := tmpl.Metadata["AWS::CloudFormation::Interface"].(map[string]any)["ParameterGroups"].([]any)
	for _, g := range groups {
		for _, name := range g.(map[string]any)["Parameters"].([]any) {
			if slices.Contains(grouped, name.(string)) {
				t.Errorf("%s is in two groups", name)
			}
			grouped = append(grouped, name.(string))
		}
	}
	for name, p := range tmpl.Parameters {
		if !slices.Contains(grouped, name) {
			t.Errorf("%s is in no group", name)
		}
		if p.Description == "" || p.Type != "Number" && p.AllowedPattern == "" && len(p.AllowedValues) == 0 ||
			p.Type == "Number" && p.MinValue == nil && len(p.AllowedValues) == 0 {
			t.Errorf("%s has no description, or accepts everything", name)
		}
		if p.AllowedPattern != "" && !(strings.HasPrefix(p.AllowedPattern, "^") &&
			strings.HasSuffix(p.AllowedPattern, "$")) {
			t.Errorf("the pattern of %s is not anchored: %s", name, p.AllowedPattern)
		}
	}
	if len(grouped) != len(tmpl.Parameters) {
		t.Errorf("%d of %d parameters are in groups", len(grouped), len(tmpl.Parameters))
	}
}

var update = flag.Bool("update", false, "write what is generated from the template: docs/stack.md, docs/costs.md, deploy/grafana.json")

// TestParametersAreDocumented: docs/stack.md lists the parameters in the order in which `sam deploy --guided` asks.
func TestParametersAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(Root(), "template.yaml"))
	must(t, err)
	var rows strings.Builder
	rows.WriteString("| parameter | default | meaning |\n|---|---|---|\n")
	asked, _, _ := strings.Cut(string(text), "\nMetadata:")
	for _, name := range regexp.MustCompile(`(?m)^  ([A-Za-z]+):$`).FindAllStringSubmatch(asked, -1) {
		p, byDefault := shared.Templates[byDefault].Parameters[name[1]], "none"
		if p.Default != nil {
			byDefault = "empty"
			if *p.Default != "" {
				byDefault = "`" + string(*p.Default) + "`"
			}
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", name[1], byDefault, strings.ReplaceAll(p.Description, "<", `\<`))
	}
	generated(t, "docs/stack.md", "parameters", rows.String())
}

// generated compares a part of a document with its source, or updates it.
func generated(t *testing.T, file, part, want string) {
	t.Helper()
	begin, end := fmt.Sprintf("<!-- %s -->\n\n", part), fmt.Sprintf("\n<!-- end of %s -->", part)
	path := filepath.Join(Root(), file)
	doc, err := os.ReadFile(path)
	must(t, err)
	before, rest, _ := strings.Cut(string(doc), begin)
	listed, after, _ := strings.Cut(rest, end)
	switch {
	case *update:
		must(t, os.WriteFile(path, []byte(before+begin+want+end+after), 0o644))
	case listed != want:
		t.Errorf("%s differs: run go test ./template -run %s -update in test/. It should list\n%s", file, t.Name(), want)
	}
}

// TestCFNLint checks the template as written and as transformed: some errors are visible only after the transform.
func TestCFNLint(t *testing.T) {
	for _, finding := range shared.Lint {
		t.Error(finding)
	}
	for name, findings := range shared.LintOf {
		for _, finding := range findings {
			t.Errorf("%s: %s", name, finding)
		}
	}
}

// TestParameterSetsAreAccepted: the other tests use parameters that can be deployed.
func TestParameterSetsAreAccepted(t *testing.T) {
	for name, tmpl := range shared.Templates {
		for _, why := range tmpl.Refuses(sets[name]) {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestTemplateIsSmall: people answer a question for each parameter of `sam deploy --guided`, and CloudFormation accepts
// 51,200 bytes without a bucket.
func TestTemplateIsSmall(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "template.yaml"))
	if n := len(shared.Templates[byDefault].Parameters); err != nil || len(b) > 47_000 || n > 33 {
		t.Errorf("it has %d bytes and %d parameters, want at most 47,000 and 33: %v", len(b), n, err)
	}
}
