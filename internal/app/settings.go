package app

import (
	"fmt"
	"slices"
	"strings"
)

// Setting is an environment variable of the function. docs/settings.md is generated from these.
type Setting struct {
	Name    string
	Default string // empty if there is none
	Values  string // the allowed values, as the end of "set it to …"
	Meaning string
	Why     string // the reason for the default, or for having none

	read func(c *Config, value string) error // nil if ParseConfig reads it; its error completes "set it to …, "
}

// Part is a group of settings.
type Part struct {
	Title    string
	Settings []Setting
}

// Parts returns all settings.
func Parts() []Part {
	return []Part{
		{"Cluster and authentication", clusterSettings},
		{"Draining", drainSettings},
		{"Other events", otherEventSettings},
		{"Replacement", replaceSettings},
		{"Rehearsals", checkSettings},
	}
}

// Names of the settings.
const (
	envCluster = "KOPS_SPOT_CLUSTER"
	envMode    = "KOPS_SPOT_MODE"
	envLogin   = "KOPS_SPOT_LOGIN"
	envServer  = "KOPS_SPOT_SERVER"
	envCA      = "KOPS_SPOT_CA"

	envForce      = "KOPS_SPOT_FORCE"
	envForceGrace = "KOPS_SPOT_FORCE_GRACE"
	envShutdown   = "KOPS_SPOT_SHUTDOWN_GRACE"
	envDaemonSets = "KOPS_SPOT_DAEMONSETS"

	envRebalance       = "KOPS_SPOT_REBALANCE"
	envScheduledChange = "KOPS_SPOT_SCHEDULED_CHANGE"
	envHooks           = "KOPS_SPOT_HOOKS"

	envReplace       = "KOPS_SPOT_REPLACE"
	envCASTAICluster = "KOPS_SPOT_CASTAI_CLUSTER"
	envCASTAIKey     = "KOPS_SPOT_CASTAI_KEY"
	envCASTAIURL     = "KOPS_SPOT_CASTAI_URL"

	envRehearsals = "KOPS_SPOT_REHEARSALS"

	prefix = "KOPS_SPOT_"
)

var clusterSettings = []Setting{
	{Name: envCluster,
		Values:  "the name of the kOps cluster, such as prod.example.com",
		Meaning: "the cluster to work for, as in the EC2 tag `KubernetesCluster`",
		Why:     "Required: every function in a region receives every event and uses the name to recognize its own instances."},
	{Name: envMode,
		Values:  "`observe` or `act`",
		Meaning: "`observe` reports the plan and changes nothing; `act` carries out the plan",
		Why:     "Required; there is no safe default."},
	{Name: envLogin,
		Values: "`iam`, `iam:<cluster ID>`, `secretsmanager:<secret>`, `ssm:<parameter>`, `file:<path>` or `kubeconfig:<path>`",
		Meaning: "how to authenticate to the cluster: with the function's role and aws-iam-authenticator (`iam:<cluster ID>` if the authenticator " +
			"uses another ID), with a ServiceAccount token at a location, or with a kubeconfig",
		Why: "Required: the function cannot detect which methods a cluster supports."},
	{Name: envServer,
		Values:  "the API server's URL, such as https://api.prod.example.com",
		Meaning: "the URL of the API server; not used with a kubeconfig",
		Why:     "Required without a kubeconfig: the name of the load balancer does not always follow from the cluster's name."},
	{Name: envCA,
		Values:  "CA certificates as PEM or as PEM in base64, `secretsmanager:<secret>`, `ssm:<parameter>` or `file:<path>`",
		Meaning: "the CA certificates of the API server, or their location; not used with a kubeconfig",
		Why: "The certificate must have the host's name or api.internal.<cluster>, which kOps adds to each. Without this setting, " +
			"the system's root certificates are used, for load balancers with a public certificate."},
}

// environment returns the settings in environ, which has the form of os.Environ. An empty setting counts as not set.
// Its errors name unknown settings.
func environment(environ []string) (env map[string]string, errs []error) {
	env = map[string]string{}
	names := settingNames()
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains(names, name):
			env[name] = strings.TrimSpace(value)
		case strings.HasPrefix(name, prefix):
			errs = append(errs, fmt.Errorf("%s: unknown setting; the settings are %s", name, strings.Join(names, ", ")))
		}
	}
	return env, errs
}

func settingNames() (names []string) {
	for _, part := range Parts() {
		for _, s := range part.Settings {
			names = append(names, s.Name)
		}
	}
	return names
}

// readAll reads the settings that have a read function.
func (c *Config) readAll(env map[string]string) (errs []error) {
	for _, part := range Parts() {
		for _, s := range part.Settings {
			if s.read == nil || env[s.Name] == "" {
				continue
			}
			if err := s.read(c, env[s.Name]); err != nil {
				errs = append(errs, fmt.Errorf("%s: set it to %s, %w", s.Name, strings.ReplaceAll(s.Values, "`", ""), err))
			}
		}
	}
	return errs
}
