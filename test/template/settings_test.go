package template

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"

	"github.com/castai/kops-spot/internal/app"
)

// environment returns the function's environment for parameters, in the form of os.Environ.
func environment(t *testing.T, tmpl *Template, given Parameters) (environ []string) {
	t.Helper()
	variables := tmpl.Resolve(given).Resources["SpotHandlerFunction"].Properties["Environment"].(map[string]any)["Variables"].(map[string]any)
	for name, value := range variables {
		environ = append(environ, name+"="+value.(string))
	}
	return environ
}

// parameterOf returns the parameter of a setting: its name without KOPS_SPOT_ and underscores, in any case.
func parameterOf(tmpl *Template, setting string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(setting, "KOPS_SPOT_"), "_", "")
	for parameter := range tmpl.Parameters {
		if strings.EqualFold(parameter, name) {
			return parameter
		}
	}
	return ""
}

// TestEverySettingIsAParameter with the same default.
func TestEverySettingIsAParameter(t *testing.T) {
	tmpl := shared.Templates[byDefault]
	variables := tmpl.Resources["SpotHandlerFunction"].Properties["Environment"].(map[string]any)["Variables"].(map[string]any)
	unread := maps.Clone(variables)
	ownDefault := map[string]string{
		"KOPS_SPOT_MODE":       "act",
		"KOPS_SPOT_LOGIN":      "iam",
		"KOPS_SPOT_CASTAI_URL": "", // not valid by itself
	}
	for _, part := range app.Parts() {
		for _, s := range part.Settings {
			name := parameterOf(tmpl, s.Name)
			p, ok := tmpl.Parameters[name]
			if !ok {
				t.Errorf("%s is not a parameter", s.Name)
				continue
			}
			var value any = map[string]any{"Ref": name}
			if p.isList() {
				value = map[string]any{"Fn::Join": []any{",", value}}
			}
			if !reflect.DeepEqual(variables[s.Name], value) {
				t.Errorf("%s is %v in the function's environment, want the parameter %s", s.Name, variables[s.Name],
					name)
			}
			delete(unread, s.Name)
			want, ok := ownDefault[s.Name]
			if !ok {
				want = s.Default
			}
			switch {
			case s.Name == "KOPS_SPOT_CLUSTER":
				if p.Default != nil {
					t.Error("the cluster has a default")
				}
			case p.Default == nil:
				t.Errorf("%s has no default, want %q", name, want)
			case string(*p.Default) != want:
				t.Errorf("%s has the default %q, want %q", name, *p.Default, want)
			}
		}
	}
	delete(unread, "HTTPS_PROXY") // TestProxy
	delete(unread, "NO_PROXY")
	for name := range unread {
		t.Errorf("%s is in the function's environment, but not a setting", name)
	}
}

// TestFunctionAcceptsItsEnvironment as the template renders it: empty variables count as unset.
func TestFunctionAcceptsItsEnvironment(t *testing.T) {
	for name, tmpl := range shared.Templates {
		if _, err := app.ParseConfig(environment(t, tmpl, sets[name])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProxy: the function uses HttpsProxy for HTTPS, except for the hosts after it.
func TestProxy(t *testing.T) {
	for given, want := range map[string]map[string]string{
		"": {"https://api." + cluster: ""},
		"http://proxy.example.com:3128": {"https://api." + cluster: "http://proxy.example.com:3128",
			"http://127.0.0.1:9001": ""},
		"http://proxy:3128,.amazonaws.com,api." + cluster: {"https://ec2.eu-west-1.amazonaws.com": "",
			"https://api." + cluster: "", "https://api.cast.ai": "http://proxy:3128", "https://proxy": "http://proxy:3128"},
	} {
		config := httpproxy.Config{}
		for _, kv := range environment(t, shared.Templates[byDefault], with(Parameters{"HttpsProxy": given})) {
			switch name, value, _ := strings.Cut(kv, "="); name {
			case "HTTPS_PROXY":
				config.HTTPSProxy = value
			case "NO_PROXY":
				config.NoProxy = value
			}
		}
		for to, want := range want {
			r, err := http.NewRequest(http.MethodGet, to, nil)
			must(t, err)
			got, err := config.ProxyFunc()(r.URL)
			must(t, err)
			if got == nil && want != "" || got != nil && got.String() != want {
				t.Errorf("%q: %s goes through %v, want %q", given, to, got, want)
			}
		}
	}
}

// TestEnvironmentFits into Lambda's 4 KB for all variables, with a CA and the longest usual values. Two CAs, as during
// a rotation, fit too, but not together with everything else: store them in a parameter or secret.
func TestEnvironmentFits(t *testing.T) {
	const limit = 4096
	size := func(p Parameters) (n int) {
		for _, kv := range environment(t, shared.Templates[everything], p) {
			n += len(kv) - 1
		}
		return n
	}
	ca := asKOps(t)
	long := with(sets[everything], Parameters{"Cluster": strings.Repeat("a", 50) + "." + strings.Repeat("b", 50) +
		".com", "Server": "https://" + strings.Repeat("c", 90) + ".elb.eu-west-1.amazonaws.com",
		"Hooks": strings.Repeat("a-hook-of-ours,", 6) + "b", "CA": ca})
	if why := shared.Templates[everything].Refuses(long); len(why) > 0 {
		t.Fatal(why)
	}
	if n := size(long); n > limit {
		t.Errorf("with a CA of %d characters the environment has %d bytes, Lambda's limit is %d", len(ca), n, limit)
	}
	if n := size(with(Parameters{"CA": ca + ca})); n > limit {
		t.Errorf("with two CAs the environment has %d bytes, Lambda's limit is %d", n, limit)
	}
	if n := size(with(sets[everything], Parameters{"CA": "ssm:/cast-kops/ca"})); n > limit/2 {
		t.Errorf("with the CA in a parameter the environment still has %d bytes", n)
	}
}

// TestParametersAreAsStrictAsTheFunction: values that the function rejects cannot be deployed.
func TestParametersAreAsStrictAsTheFunction(t *testing.T) {
	tmpl := shared.Templates[byDefault]
	base := needed()
	place := []string{"secretsmanager:cast/x", "ssm:/cast/x", "file:/opt/x"}
	for parameter, c := range map[string]struct {
		beside    Parameters
		good, bad []string
	}{
		"Cluster": {good: []string{cluster, "a.b", "1.k8s.local"},
			bad: []string{"", "prod", "prod.example.com/x", "prod example.com"}},
		"Mode": {good: []string{"act", "observe"}, bad: []string{"", "Act", "off"}},
		"Login": {good: append([]string{"iam", "iam:prod"}, place...),
			bad: []string{"", "aws", "secretsmanager:", "ssm:", "file:", "kubeconfig:", "token:abc"}},
		"Server": {good: []string{"https://api.prod.example.com", "https://10.0.0.1:8443",
			"https://[2001:db8::1]"}, bad: []string{"api.prod.example.com", "http://api.prod.example.com", "https://"}},
		"CA": {good: append([]string{"", asKOps(t)}, place...),
			bad: []string{"ssm:", "file:", "secretsmanager:", "https://ca.example.com", "no base64"}},
		"Force": {good: []string{"allow", "never"}, bad: []string{"Allow", "always"}},
		"ForceGrace": {good: []string{"1s", "60s", "99s", "109s", "110s", "1m", "1m0s", "1m49s", "1m50s"},
			bad: []string{"0s", "111s", "120s", "1m51s", "2m", "60", "1h"}},
		"ShutdownGrace": {good: []string{"0s", "9s", "20s", "100s", "150s", "180s", "1m", "1m30s", "2m59s", "3m", "3m0s"},
			bad: []string{"-1s", "181s", "3m1s", "4m", "1h", "20", "s"}},
		"DaemonSets":      {good: []string{"never", "last"}, bad: []string{"first", "always"}},
		"Rebalance":       {good: []string{"ignore", "cordon", "drain"}, bad: []string{"yes"}},
		"ScheduledChange": {good: []string{"ignore", "drain"}, bad: []string{"cordon"}},
		"Hooks": {good: []string{"", "drain", "a/b_c-d,e", "a, b", "a,", ",a,,b"},
			bad: []string{"a b", "a!", "a,!"}},
		"Replace": {beside: Parameters{"CASTAICluster": castaiCluster, "CASTAIKey": "ssm:/k"},
			good: []string{"auto", "none", "asg", "castai", "karpenter"}, bad: []string{"asg,karpenter", "eks"}},
		"CASTAICluster": {beside: Parameters{"CASTAIKey": "ssm:/k"}, good: []string{castaiCluster},
			bad: []string{"prod", castaiCluster + "0", ""}},
		"CASTAIKey": {beside: Parameters{"CASTAICluster": castaiCluster}, good: place,
			bad: []string{"0123456789abcdef0123456789abcdef", "ssm:", "env:KEY", ""}},
		"CASTAIURL": {beside: Parameters{"CASTAICluster": castaiCluster, "CASTAIKey": "ssm:/k"},
			good: []string{"", "https://api.eu.cast.ai"},
			bad:  []string{"api.cast.ai", "ftp://api.cast.ai"}},
		"Rehearsals": {good: []string{"preview", "act"}, bad: []string{"yes"}},
	} {
		t.Run(parameter, func(t *testing.T) {
			for _, value := range c.good {
				given := with(base, c.beside, Parameters{parameter: value})
				if why := tmpl.Refuses(given); len(why) > 0 {
					t.Errorf("%q is rejected: %v", value, why)
				}
				if _, err := app.ParseConfig(environment(t, tmpl, given)); err != nil {
					t.Errorf("the function rejects %q: %v", value, err)
				}
			}
			for _, value := range c.bad {
				given := with(base, c.beside, Parameters{parameter: value})
				if _, err := app.ParseConfig(environment(t, tmpl, given)); err == nil {
					t.Errorf("the function accepts %q: use an example that it rejects", value)
				}
				if why := tmpl.Refuses(given); len(why) == 0 {
					t.Errorf("%q is accepted", value)
				}
			}
		})
	}
}

// TestRulesFollowTheSettings: rules whose events the settings ignore are disabled, because they would cost invocations.
func TestRulesFollowTheSettings(t *testing.T) {
	always := []string{"launch-failed", "rehearsal", "self-check", "spot-warning", "state-change"}
	for name, c := range map[string]struct {
		given Parameters
		more  []string
	}{
		byDefault:               {nil, nil},
		"drain recommendations": {Parameters{"Rebalance": "drain"}, []string{"rebalance"}},
		"cordon":                {Parameters{"Rebalance": "cordon"}, []string{"rebalance"}},
		"CAST AI":               {Parameters{"CASTAICluster": castaiCluster, "CASTAIKey": "ssm:/k"}, []string{"rebalance"}},
		"scheduled changes":     {Parameters{"ScheduledChange": "drain"}, []string{"health"}},
		"hooks":                 {Parameters{"Hooks": "drain"}, []string{"lifecycle"}},
	} {
		var enabled []string
		for _, r := range shared.Templates[byDefault].Resolve(with(c.given)).Resources {
			if r.Type != "AWS::Events::Rule" {
				continue
			}
			rule := r.Properties["Name"].(string)
			if state := r.Properties["State"]; state != "DISABLED" && !isForPeople(rule) {
				enabled = append(enabled, rule[strings.LastIndexByte(rule, '.')+1:])
			}
		}
		slices.Sort(enabled)
		if want := slices.Sorted(slices.Values(append(c.more, always...))); !slices.Equal(enabled, want) {
			t.Errorf("%s: the enabled rules are %q, want %q", name, enabled, want)
		}
	}
}
