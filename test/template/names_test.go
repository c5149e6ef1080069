package template

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// ruleNames are the suffixes of the rules' names.
var ruleNames = map[string]string{"SpotWarning": "spot-warning", "Rebalance": "rebalance",
	"Lifecycle": "lifecycle", "Health": "health", "StateChange": "state-change", "LaunchFailed": "launch-failed", "Rehearsal": "rehearsal",
	"SelfCheck": "self-check"}

// nameProperties has the name property of each resource type and the names that AWS accepts.
var nameProperties = map[string]struct{ property, form string }{
	"AWS::Lambda::Function":       {"FunctionName", `[a-zA-Z0-9_-]{1,64}`},
	"AWS::Events::Rule":           {"Name", `[.\-_A-Za-z0-9]{1,64}`},
	"AWS::IAM::Role":              {"RoleName", `[\w+=,.@-]{1,64}`},
	"AWS::SQS::Queue":             {"QueueName", `[a-zA-Z0-9_-]{1,80}`},
	"AWS::SNS::Topic":             {"TopicName", `[a-zA-Z0-9_-]{1,256}`},
	"AWS::Logs::LogGroup":         {"LogGroupName", `[.\-_/#A-Za-z0-9]{1,512}`},
	"AWS::Events::Connection":     {"Name", `[.\-_A-Za-z0-9]{1,64}`},
	"AWS::Events::ApiDestination": {"Name", `[.\-_A-Za-z0-9]{1,64}`},
	"AWS::CloudWatch::Alarm":      {"AlarmName", `.{1,255}`},
	"AWS::CloudWatch::Dashboard":  {"DashboardName", `[A-Za-z0-9_-]{1,255}`},
}

// TestNames: the names agree with package iam, AWS accepts them, and `kops delete cluster` of any cluster deletes none
// of them.
func TestNames(t *testing.T) {
	clusters := []string{"a.b", cluster, "prod-example.com", "cast.kops", "cast-kops.prod",
		"cast-kops.prod.example.com", "cast.kops-prod", "cast-kops-prod.k8s.local",
		strings.Repeat("a-", 30) + "x." + strings.Repeat("b", 44)}
	for _, c := range clusters {
		given := with(sets[everything], Parameters{"Cluster": c, "ShortName": iam.Name(c)})
		if why := shared.Templates[everything].Refuses(given); len(why) > 0 {
			t.Fatalf("%s: %v", c, why)
		}
		resources := shared.Templates[everything].Resolve(given).Resources
		if got := resources["SpotHandlerFunction"].Properties["FunctionName"]; got != iam.FunctionName(c) {
			t.Errorf("the function of %s is called %s", c, got)
		}
		if got := resources["LogGroup"].Properties["LogGroupName"]; got != iam.LogGroup(c) {
			t.Errorf("the log group of %s is %s", c, got)
		}
		rules := 0
		for id, r := range resources {
			if n, ok := nameProperties[r.Type]; ok {
				name := fmt.Sprint(r.Properties[n.property])
				if !regexp.MustCompile(`^` + n.form + `$`).MatchString(name) {
					t.Errorf("%s of %s: AWS does not accept the name %q", id, c, name)
				}
				for _, other := range clusters {
					if doomed(r.Type, name, other) {
						t.Errorf("kops delete cluster %s deletes %s of %s", other, name, c)
					}
				}
			}
			if event, ok := strings.CutPrefix(id, "SpotHandlerFunction"); ok && r.Type == "AWS::Events::Rule" {
				rules++
				if got, want := r.Properties["Name"], iam.RuleName(c, ruleNames[event]); got != want {
					t.Errorf("the rule %s of %s has the name %s, want %s", event, c, got, want)
				}
			}
		}
		if rules != len(ruleNames) {
			t.Errorf("%s has %d rules, want %d", c, rules, len(ruleNames))
		}
	}
}

// doomed returns what `kops delete cluster` finds by name alone: rules that begin with the cluster's name, shortened to
// 40 characters with a hash if it is longer, and queues that begin with it with dashes for dots (eventbridge.go and
// sqs.go in kOps' pkg/resources/aws).
func doomed(kind, name, cluster string) bool {
	switch kind {
	case "AWS::Events::Rule":
		if len(cluster) > 40 {
			cluster = cluster[:33]
		}
		return strings.HasPrefix(name, cluster)
	case "AWS::SQS::Queue":
		return strings.HasPrefix(name, strings.ReplaceAll(cluster, ".", "-"))
	}
	return false
}

// TestTags: every resource has its owner's tags, and none that kOps uses to find resources to delete.
func TestTags(t *testing.T) {
	for id, r := range stack(t, everything).Resources {
		tags := map[string]string{}
		list, _ := r.Properties["Tags"].([]any)
		for _, tag := range list {
			tag := tag.(map[string]any)
			tags[fmt.Sprint(tag["Key"])] = fmt.Sprint(tag["Value"])
		}
		for key := range tags {
			if key == "KubernetesCluster" || strings.HasPrefix(key, "kubernetes.io/") || key == "Name" {
				t.Errorf("%s has the tag %s", id, key)
			}
		}
		delete(tags, "lambda:createdBy") // added by the transform
		tagged := []string{"AWS::Lambda::Function", "AWS::IAM::Role", "AWS::SQS::Queue", "AWS::SNS::Topic",
			"AWS::Logs::LogGroup"}
		want := iam.Tags(cluster)
		if r.Type == "AWS::IAM::Role" {
			want[iam.TagStack] = "cast-kops-" + iam.Name(cluster) // onboarding recognizes a role of the stack by it
		}
		if slices.Contains(tagged, r.Type) && !maps.Equal(tags, want) {
			t.Errorf("%s has the tags %v, want %v", id, tags, want)
		}
	}
}
