package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/castai"
	"github.com/castai/kops-spot/internal/spot"
)

// PolicyOf reads only the policy from environ, which has the form of os.Environ. Its error is like ParseConfig's.
func PolicyOf(environ []string) (spot.Policy, error) {
	env, errs := environment(environ)
	c := Config{Cluster: env[envCluster]}
	errs = append(errs, c.readPolicy(env)...)
	if len(errs) > 0 {
		return spot.Policy{}, fmt.Errorf("reading the policy: %w", errors.Join(errs...))
	}
	return c.Policy, nil
}

func (c *Config) readPolicy(env map[string]string) []error {
	c.Policy = spot.DefaultPolicy(c.Cluster)
	return append(c.readAll(env), c.readAutoscaler(env)...)
}

var drainSettings = []Setting{
	choice(envForce, func(c *Config) *spot.Force { return &c.Policy.Force }, spot.Forces(),
		"whether to force-delete a pod if its eviction is refused until the last moment",
		"The instance stops anyway. A pod that is deleted in time gets its grace period; one that is left gets only what its kubelet allows: "+
			"20 s by kOps' default, and no SIGTERM with amazonvpc."),
	duration(envForceGrace, func(p *spot.Policy) *time.Duration { return &p.ForceGrace }, time.Second, 110*time.Second,
		"with 0s, the API server would remove the pod before the kubelet stops it; a warning gives at most two minutes",
		"the longest grace period of a forced delete. Pods are force-deleted this long, plus the reserve, before the deadline",
		"It divides the two minutes into halves: one to retry evictions while replacement pods become ready, one for pods to stop gracefully."),
	duration(envShutdown, func(p *spot.Policy) *time.Duration { return &p.ShutdownGrace }, 0, spot.MaxShutdownGrace,
		"according to awslabs/amazon-eks-ami, EC2 waits three minutes for the operating system to shut down; not verified by us",
		"how long the kubelets delay the shutdown of their instances for ordinary pods: `shutdownGracePeriod` minus "+
			"`shutdownGracePeriodCriticalPods`. A pod whose grace period, up to "+envForceGrace+", fits into this time is never "+
			"force-deleted; any other is force-deleted this much later",
		"With 0s, the function never relies on a kubelet's shutdown window, which is 0 with amazonvpc. A value above the real window "+
			"would let pods be killed before their grace period ends."),
	choice(envDaemonSets, func(c *Config) *spot.DrainOrder { return &c.Policy.DaemonSets }, []spot.DrainOrder{spot.DrainNever, spot.DrainLast},
		"whether to evict DaemonSet pods: `never`, or `last` for those that do not tolerate the cordon, after all other pods are gone",
		"They provide network, storage and logging, which terminating pods still need."),
}

var otherEventSettings = []Setting{
	choice(envRebalance, func(c *Config) *spot.Response { return &c.Policy.Rebalance },
		[]spot.Response{spot.RespondIgnore, spot.RespondCordon, spot.RespondDrain},
		"what to do on a rebalance recommendation. `ignore` does not change the node. CAST AI's autoscaler is notified about its own nodes in any case",
		"Many recommendations are not followed by an interruption, and nothing terminates the instance: a drained node would cost money without running pods."),
	choice(envScheduledChange, func(c *Config) *spot.Response { return &c.Policy.ScheduledChange },
		[]spot.Response{spot.RespondIgnore, spot.RespondDrain},
		"what to do on a scheduled change from AWS Health, such as an instance retirement. `ignore` only reports it in the outcome",
		"AWS announces changes days ahead, so people can choose a better time."),
	{Name: envHooks,
		Values:  "names of lifecycle hooks, separated by commas",
		Meaning: "the termination lifecycle hooks to handle: the function drains the node while the hook delays the termination, and then completes the action",
		Why:     "A hook must have exactly one handler. kOps' own hooks belong to its node termination handler, until `kops-spot install --take-over-nth` replaces it.",
		read:    readHooks},
}

var replaceSettings = []Setting{
	choice(envReplace, func(c *Config) *spot.Replacer { return &c.Policy.Replace },
		[]spot.Replacer{spot.ReplacerAuto, spot.ReplacerGroup, spot.ReplacerAutoscaler, spot.ReplacerKarpenter, spot.ReplacerNone},
		"who replaces the node. `auto` decides by node: CAST AI's autoscaler for nodes that it created, pending pods for "+
			"Karpenter's nodes, and the Auto Scaling group for all others. `karpenter` deletes the node's NodeClaim, which requires "+
			"`deploy/rbac-karpenter.yaml`",
		"The replacement should launch before the first pod stops. Only one replacer is used: two would launch two instances for one node."),
	{Name: envCASTAICluster,
		Values:  "the ID of the cluster in CAST AI, a UUID",
		Meaning: "the cluster's ID in CAST AI; requires " + envCASTAIKey,
		Why:     "Only clusters that are connected to CAST AI have one."},
	{Name: envCASTAIKey,
		Values: "the location of the API key, not the key: `secretsmanager:<secret>`, `ssm:<parameter>` or `file:<path>`",
		Meaning: "the location of CAST AI's API key. A secret or parameter contains the key, or a JSON object with the key under `" + castaiKey + "`. " +
			"The function reads it again when the key is rejected, so it can be rotated",
		Why: "The key itself is not accepted here: everybody with access to the function's configuration could read it."},
	{Name: envCASTAIURL, Default: castai.DefaultURL,
		Values:  "the URL of CAST AI's API",
		Meaning: "the URL of CAST AI's API",
		Why:     "It is the same for all clusters, unless CAST AI gave you a different URL."},
}

var checkSettings = []Setting{
	{Name: envRehearsals, Default: "preview", Values: "`preview` or `act`",
		Meaning: "what a rehearsal does. `preview` reports the plan. `act` drains one node at a time, without forced deletes and without a replacement, and uncordons it afterwards",
		Why:     "Anybody who can put events on the bus can send a rehearsal, so it must not move pods unless you allow it.",
		read: func(c *Config, value string) error {
			c.Policy.DrainRehearsals = value == "act"
			if !c.Policy.DrainRehearsals && value != "preview" {
				return invalidValue(value)
			}
			return nil
		}},
}
