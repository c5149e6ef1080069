package iam

import (
	"maps"
	"regexp"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	long := "a-very-long-name-for-a-cluster-of-ours.eu-west-1.staging.example.com" // 68 characters
	for _, c := range []struct{ name, got, want string }{
		{"user", UserName("prod.example.com"), "cast-kops-prod.example.com"},
		{"user of 64 characters", UserName(long[:54]), "cast-kops-" + long[:54]},
		{"user of a long name", UserName(long), "cast-kops-a-very-long-name-for-a-cluster-of-ours.eu-" + hash(long)},
		{"function", FunctionName("prod.example.com"), "cast-kops-prod-example-com-7405b0253a21"},
		{"function of a long name", FunctionName(long), "cast-kops-a-very-long-name-for-a-clus-" + hash(long)},
		{"log group", LogGroup("prod.example.com"), "/aws/lambda/cast-kops-prod-example-com-7405b0253a21"},
		{"rule", RuleName("prod.example.com", "interruption"), "cast-kops-prod-example-com-7405b0253a21.interruption"},
		{"a second cluster's role", FunctionRoleName("prod.example.com"), "CastLambdaRoleForSpot-prod-example-com-7405b0253a21"},
		{"path", RolePath("prod.example.com"), "/cast-kops/prod-example-com-7405b0253a21/"},
		{"secret", SecretName("prod.example.com", "token"), "cast-kops/prod.example.com/token"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s; want %s", c.name, c.got, c.want)
		}
	}
}

// TestNamesAreValidAndUnique: AWS accepts them, and no two clusters have the same.
func TestNamesAreValidAndUnique(t *testing.T) {
	forms := map[string]*regexp.Regexp{
		"user":     regexp.MustCompile(`^[\w+=,.@-]{1,64}$`),
		"function": regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`),
		"rule":     regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,64}$`),
		"role":     regexp.MustCompile(`^[\w+=,.@-]{1,64}$`),
		"policy":   regexp.MustCompile(`^[\w+=,.@-]{1,128}$`),
		"path":     regexp.MustCompile(`^/[!-~]{1,510}/$`),
	}
	clusters := []string{"a.b", "prod.example.com", "prod-example.com", "prod.example-com", "xprod.example.com", "a.prod.example.com",
		strings.Repeat("a", 51) + ".com", strings.Repeat("a", 54) + ".com", strings.Repeat("a", 54) + ".net", strings.Repeat("a", 54) + "-.org",
		strings.Repeat("a-", 30) + "x." + strings.Repeat("b", 40), strings.Repeat("a.", 50) + "com"}
	seen := map[string]string{}
	for _, cluster := range clusters {
		for kind, name := range map[string]string{
			"user": UserName(cluster), "function": FunctionName(cluster), "rule": RuleName(cluster, "thirteen-long"),
			"role": FunctionRoleName(cluster), "path": RolePath(cluster), "policy": Values{Cluster: cluster}.PolicyName(ClusterPolicy),
		} {
			if !forms[kind].MatchString(name) {
				t.Errorf("%s of %s: %q is invalid", kind, cluster, name)
			}
			if other := seen[kind+strings.ToLower(name)]; other != "" { // IAM ignores case
				t.Errorf("%s and %s have the same %s", cluster, other, kind)
			}
			seen[kind+strings.ToLower(name)] = cluster
		}
		if strings.HasPrefix(RuleName(cluster, "x"), cluster) {
			t.Errorf("kOps would delete the rule of %s with the cluster", cluster)
		}
	}
}

func TestUserTags(t *testing.T) {
	got, err := UserTags(testValues())
	want := map[string]string{"cast:managed-by": "kops-spot", "cast-cluster": "prod.example.com", "cast-name": "prod-example-com-7405b0253a21",
		"cast-region": "eu-west-1", "cast-vpc": "vpc-0123456789abcdef0"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// IAM would insert a wildcard in a tag into the policy's resources.
	for _, change := range []func(*Values){
		func(v *Values) { v.Cluster = "*.com" }, func(v *Values) { v.Region = "*" }, func(v *Values) { v.VPC = "vpc-*" },
		func(v *Values) { v.Cluster = "" }, func(v *Values) { v.Region = "" }, func(v *Values) { v.VPC = "" },
	} {
		v := testValues()
		change(&v)
		if tags, err := UserTags(v); err == nil {
			t.Errorf("tags %v are accepted", tags)
		}
	}
}

func TestARNs(t *testing.T) {
	v := testValues()
	v.Partition, v.Region = "aws-cn", "cn-north-1"
	for got, want := range map[string]string{
		v.PolicyARN(ManagedPolicy):                   "arn:aws-cn:iam::123456789012:policy/CASTKopsPolicyV2",
		v.PolicyARN(ClusterPolicy):                   "arn:aws-cn:iam::123456789012:policy/CASTKopsCluster-prod-example-com-7405b0253a21",
		v.AWSPolicyARN("service-role/AWSLambdaRole"): "arn:aws-cn:iam::aws:policy/service-role/AWSLambdaRole",
		v.UserARN():         "arn:aws-cn:iam::123456789012:user/cast-kops-prod.example.com",
		v.FunctionRoleARN(): "arn:aws-cn:iam::123456789012:role/CastLambdaRoleForSpot",
		v.FunctionARN():     "arn:aws-cn:lambda:cn-north-1:123456789012:function:cast-kops-prod-example-com-7405b0253a21",
	} {
		if got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
