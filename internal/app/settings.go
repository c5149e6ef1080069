package app

import (
	"fmt"
	"slices"
	"strings"
)

// Setting is one environment variable that the function reads. docs/settings.md is made of these.
type Setting struct {
	Name    string
	Default string // what counts where it is not set; empty where nothing does
	Values  string // what it may be set to, as the end of "set it to …"
	Meaning string
	Why     string // why the default is right for Spot, or why there is none

	read func(c *Config, value string) error // nil: see ParseConfig; its error completes "set it to …, "
}

// Part is settings that belong together.
type Part struct {
	Title    string
	Settings []Setting
}

// Parts are all settings.
func Parts() []Part {
	return []Part{
		{"The cluster, and the log-in to it", clusterSettings},
		{"Draining", drainSettings},
		{"Relatives of the Spot warning", relativeSettings},
		{"Replacement", replaceSettings},
		{"Practice and self-check", checkSettings},
	}
}

// The settings by their names. What they mean stands in the tables.
const (
	envCluster       = "KOPS_SPOT_CLUSTER"
	envMode          = "KOPS_SPOT_MODE"
	envLogin         = "KOPS_SPOT_LOGIN"
	envServer        = "KOPS_SPOT_SERVER"
	envCA            = "KOPS_SPOT_CA"
	envTLSServerName = "KOPS_SPOT_TLS_SERVER_NAME"

	envReserve    = "KOPS_SPOT_RESERVE"
	envForce      = "KOPS_SPOT_FORCE"
	envForceGrace = "KOPS_SPOT_FORCE_GRACE"
	envParallel   = "KOPS_SPOT_PARALLEL"
	envDaemonSets = "KOPS_SPOT_DAEMONSETS"

	envRebalance       = "KOPS_SPOT_REBALANCE"
	envScheduledChange = "KOPS_SPOT_SCHEDULED_CHANGE"
	envHooks           = "KOPS_SPOT_HOOKS"

	envReplace       = "KOPS_SPOT_REPLACE"
	envFollow        = "KOPS_SPOT_FOLLOW"
	envCASTAICluster = "KOPS_SPOT_CASTAI_CLUSTER"
	envCASTAIKey     = "KOPS_SPOT_CASTAI_KEY"
	envCASTAIURL     = "KOPS_SPOT_CASTAI_URL"

	envRehearsals = "KOPS_SPOT_REHEARSALS"

	prefix = "KOPS_SPOT_"
)

var clusterSettings = []Setting{
	{Name: envCluster,
		Values:  "the kOps cluster's name, such as prod.example.com",
		Meaning: "the cluster that the function works for, as in the EC2 tag `KubernetesCluster`",
		Why:     "It has to be set: every function in a region gets every event, and by this one knows which are its own."},
	{Name: envMode,
		Values:  "`observe` or `act`",
		Meaning: "`observe` tells what would be done and changes nothing; `act` does it",
		Why:     "It has to be set: a new drainer is better watched first, and one that was forgotten in `observe` helps nobody."},
	{Name: envLogin,
		Values: "`iam`, `iam:<cluster id>`, `secretsmanager:<secret>`, `ssm:<parameter>`, `file:<path>` or `kubeconfig:<path>`",
		Meaning: "how to log in to the cluster: by aws-iam-authenticator with the function's role (`iam:<cluster id>` where the authenticator calls the " +
			"cluster otherwise), with a ServiceAccount's token that is kept in one of the places, or as a kubeconfig says",
		Why: "It has to be set: which of them a cluster knows cannot be seen from outside."},
	{Name: envServer,
		Values:  "the API server's URL, such as https://api.prod.example.com",
		Meaning: "where the cluster's API server is; a kubeconfig says it itself",
		Why:     "It has to be set where there is no kubeconfig: the load balancer's name need not be made of the cluster's."},
	{Name: envCA,
		Values:  "CA certificates as PEM or as PEM in base64, `secretsmanager:<secret>`, `ssm:<parameter>` or `file:<path>`",
		Meaning: "the certificates that the API server's is to be signed with, or where they are; a kubeconfig says it itself",
		Why:     "Without it the system's certificates count, as they have to for a load balancer with a public certificate."},
	{Name: envTLSServerName,
		Default: internalPrefix + "<cluster>",
		Values:  "a host name",
		Meaning: "the name in the API server's certificate; a kubeconfig says it itself",
		Why: "kOps puts this name into every API server's certificate, whatever the load balancer in front is called. " +
			"Where there is no " + envCA + ", the host's own name counts."},
}

// environment reads those of the variables, in the form of os.Environ, that are settings. One that is empty counts as not
// set. Its errors name those that only look like settings.
func environment(environ []string) (env map[string]string, errs []error) {
	env = map[string]string{}
	names := settingNames()
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains(names, name):
			env[name] = strings.TrimSpace(value)
		case strings.HasPrefix(name, prefix):
			errs = append(errs, fmt.Errorf("%s: there is no such setting; there are %s", name, strings.Join(names, ", ")))
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

// readAll takes in the settings that say themselves how they are read.
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
