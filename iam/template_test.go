package iam

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the role into template.yaml instead of comparing it")

const (
	template = "../template.yaml"
	begin    = "      # BEGIN: generated from iam/ by make generate\n"
	end      = "      # END\n"
)

// What template.yaml has instead of a JSON string or a list with a placeholder. CloudFormation cannot prefix each
// element of a list, so it selects subnets and security groups one by one.
var (
	whole = strings.NewReplacer(
		`"<account>"`, `!Ref AWS::AccountId`,
		`"<cluster>"`, `!Ref Cluster`,
		`["<secret>"]`, `!Ref SecretArns`,
		`["<parameter>"]`, `!Ref ParameterArns`,
		`["<key>"]`, `!Ref KeyArns`,
		`"<queue>"`, `!GetAtt FailureQueue.Arn`,
		`"arn:<partition>:ec2:<region>:<account>:subnet/<subnet>"`, each("subnet", "SubnetIds", "", "Subnet2", "Subnet3"),
		`"arn:<partition>:ec2:<region>:<account>:security-group/<security-group>"`,
		each("security-group", "SecurityGroupIds", "", "Group2"),
	)
	withPlaceholder = regexp.MustCompile(`"[^"]*<[^"]*"`)
	within          = strings.NewReplacer("<partition>", "${AWS::Partition}", "<region>", "${AWS::Region}",
		"<account>", "${AWS::AccountId}", "<cluster>", "${Cluster}", "<function>", "cast-kops-${ShortName}")
)

// conditions of statements by Sid, and of policies by name. The role always has the others.
var conditions = map[string]string{
	"ReadTheLogInSecret":    "ReadsSecrets",
	"ReadTheLogInParameter": "ReadsParameters",
	"DecryptItsLogIn":       "Decrypts",
	NetworkPolicy.Name:      "InVPC",
}

// TestRoleInTemplate: it equals the documents; -update writes it.
func TestRoleInTemplate(t *testing.T) {
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	have, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("template.yaml has no lines %q and %q", begin, end)
	}
	want := "      AssumeRolePolicyDocument: " + inTemplate(t, Trust) + "\n      Policies:\n"
	for _, d := range []Document{HandlerPolicy, RuntimePolicy, NetworkPolicy} {
		policy := "{PolicyName: " + d.Name + ", PolicyDocument: " + inTemplate(t, d) + "}"
		want += "        - " + when(conditions[d.Name], policy) + "\n"
	}
	switch {
	case have == want:
	case *update:
		if err := os.WriteFile(template, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the role in template.yaml differs from iam/: run make generate")
	}
}

// inTemplate returns a document with CloudFormation's functions for its placeholders.
func inTemplate(t *testing.T, d Document) string {
	version, all, err := d.statements()
	if err != nil {
		t.Fatal(err)
	}
	var statements []string
	for _, s := range all {
		var head struct{ Sid string }
		if err := json.Unmarshal(s, &head); err != nil {
			t.Fatal(err)
		}
		filled := withPlaceholder.ReplaceAllStringFunc(whole.Replace(string(s)), func(match string) string {
			return "!Sub " + within.Replace(match)
		})
		if strings.Contains(filled, "<") {
			t.Fatalf("%s: no CloudFormation function for a placeholder of %s", d.file, filled)
		}
		statements = append(statements, when(conditions[head.Sid], strings.ReplaceAll(filled, "\n", "\n      ")))
	}
	list := strings.Join(statements, ",\n          ")
	return fmt.Sprintf("{Version: '%s', Statement: [\n          %s\n        ]}", version, list)
}

func when(condition, value string) string {
	if condition == "" {
		return value
	}
	return "!If [" + condition + ", " + value + ", !Ref AWS::NoValue]"
}

// each selects the elements of a list parameter, as EC2 resources.
func each(kind, parameter string, conditions ...string) string {
	var all []string
	for i, condition := range conditions {
		arn := "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:" + kind + "/${Id}"
		id := fmt.Sprintf("!Select [%d, !Split [',', !Ref %s]]", i, parameter)
		all = append(all, when(condition, fmt.Sprintf("!Sub [%q,\n          {Id: %s}]", arn, id)))
	}
	return strings.Join(all, ",\n        ")
}
