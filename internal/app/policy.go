package app

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/castai/kops-spot/internal/castai"
	"github.com/castai/kops-spot/internal/spot"
)

// PolicyOf reads the policy, and nothing but the policy, from an environment in the form of os.Environ. Its error is as
// ParseConfig's.
func PolicyOf(environ []string) (spot.Policy, error) {
	env, errs := environment(environ)
	c := Config{Cluster: env[envCluster]}
	errs = append(errs, c.readPolicy(env)...)
	if len(errs) > 0 {
		return spot.Policy{}, fmt.Errorf("reading the policy: %w", errors.Join(errs...))
	}
	return c.Policy, nil
}

// together is the most that the reserve and the longest forced grace period may come to: a warning comes two minutes
// before the end, and takes seconds itself to come.
const together = 115 * time.Second

func (c *Config) readPolicy(env map[string]string) []error {
	c.Policy = spot.DefaultPolicy(c.Cluster)
	errs := c.readAll(env)
	if p := c.Policy; p.Reserve+p.ForceGrace > together {
		errs = append(errs, fmt.Errorf("%s and %s: set them to %s together at the most, not %s: of a warning's two minutes "+
			"nothing would be left in which a budget could allow an eviction",
			envReserve, envForceGrace, short(together), short(p.Reserve+p.ForceGrace)))
	}
	return append(errs, c.readAutoscaler(env)...)
}

var drainSettings = []Setting{
	duration(envReserve, func(p *spot.Policy) *time.Duration { return &p.Reserve }, 0, 30*time.Second,
		"what is kept here no pod gets",
		"what is kept between the end of the last grace period and the end of the machine",
		"After a grace period the kubelet still ends what has not ended, and volumes are unmounted: that takes seconds. Of two minutes, "+
			"every second more would be taken from pods that need theirs."),
	choice(envForce, func(c *Config) *spot.Force { return &c.Policy.Force }, spot.Forces(),
		"whether a pod whose eviction is refused to the last is deleted past its budget",
		"The machine ends anyway. A pod that is spared is killed with it and gets no SIGTERM; one that is deleted in time gets it, and its grace period."),
	duration(envForceGrace, func(p *spot.Policy) *time.Duration { return &p.ForceGrace }, time.Second, 110*time.Second,
		"with 0s a pod would be forgotten before its kubelet has stopped it, and more than a warning's two minutes there never is",
		"the longest grace period of a pod that is deleted past its budget, and so how early that happens: so long, and the reserve, before the machine ends",
		"It parts the two minutes in halves: one for budgets to allow evictions, as other pods become ready elsewhere, and one for a pod to end well."),
	{Name: envParallel, Default: strconv.Itoa(spot.DefaultPolicy("").Parallel),
		Values:  "a number from 1 to 500 (no node has more pods)",
		Meaning: "how many evictions are under way at once for one node",
		Why: "All pods of a full node (110, unless its kubelet was told otherwise) are asked within three round trips, and with the 200 writes that an API " +
			"server handles at once by default, several nodes can be warned in the same moment.",
		read: func(c *Config, value string) error {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > 500 {
				return notThis(value)
			}
			c.Policy.Parallel = n
			return nil
		}},
	choice(envDaemonSets, func(c *Config) *spot.DrainOrder { return &c.Policy.DaemonSets }, []spot.DrainOrder{spot.DrainNever, spot.DrainLast},
		"what becomes of the pods of DaemonSets: `never` leaves them until the machine ends; `last` asks those that the cordon keeps from coming "+
			"straight back, when all other pods have gone",
		"The node's network, storage and logs are theirs, and pods that are ending still need them."),
}

var relativeSettings = []Setting{
	choice(envRebalance, func(c *Config) *spot.Response { return &c.Policy.Rebalance },
		[]spot.Response{spot.RespondIgnore, spot.RespondCordon, spot.RespondDrain},
		"what is done about a rebalance recommendation: `ignore` leaves the node as it is, and only tells CAST AI's autoscaler of a node that is its own",
		"Many recommendations are followed by no interruption, and nobody ends the instance: a node that was emptied for one costs money and does nothing."),
	choice(envScheduledChange, func(c *Config) *spot.Response { return &c.Policy.ScheduledChange },
		[]spot.Response{spot.RespondIgnore, spot.RespondDrain},
		"what is done about a change that AWS Health announces, such as an instance's retirement: `ignore` tells of it in the outcome only",
		"It is announced days ahead, and people can choose a better moment than that of the announcement."),
	{Name: envHooks,
		Values: "the names of lifecycle hooks, separated by commas",
		Meaning: "the Auto Scaling groups' terminate hooks that the function handles: it drains the node while the hook holds the instance, and then lets the " +
			"group go on",
		Why:  "A hook belongs to whoever made it: the one that kOps makes is the node termination handler's, and only one of the two may let the group go on.",
		read: readHooks},
}

var replaceSettings = []Setting{
	choice(envReplace, func(c *Config) *spot.Replacer { return &c.Policy.Replace },
		[]spot.Replacer{spot.ReplacerAuto, spot.ReplacerGroup, spot.ReplacerAutoscaler, spot.ReplacerKarpenter, spot.ReplacerNone},
		"who is asked for another instance: `auto` chooses by the node, which is CAST AI's autoscaler for a node that it made, nobody for "+
			"Karpenter's (the pods that are left without a node make it launch one), and the Auto Scaling group for any other; "+
			"`karpenter` deletes the node's NodeClaim, for which `deploy/rbac-karpenter.yaml` has to be applied",
		"A replacement that is on its way before the first pod has stopped is half of what the two minutes are for. "+
			"It is exactly one who is asked: two would bring two instances for one node."),
	duration(envFollow, func(p *spot.Policy) *time.Duration { return &p.FollowLaunch }, 0, 10*time.Minute,
		"an invocation ends after fifteen",
		"how long after the drain the function waits to see what becomes of its request for a replacement: the new instance and its node, or the group's reason why there is none",
		"A new instance is a node within a minute or two, and the wait ends with the machine at the latest."),
	{Name: envCASTAICluster,
		Values:  "CAST AI's id of the cluster, a UUID",
		Meaning: "which cluster this is for CAST AI; with it, " + envCASTAIKey + " has to be set",
		Why:     "Clusters without CAST AI have none, and need none."},
	{Name: envCASTAIKey,
		Values: "the place of the API key, not the key: `secretsmanager:<secret>`, `ssm:<parameter>` or `file:<path>`",
		Meaning: "where the key for CAST AI's API is kept; a secret or parameter is the bare key, or a JSON object with the key under `" + castaiKey + "`. " +
			"One that is replaced there is taken up when the old one is no longer accepted",
		Why: "Clusters without CAST AI have none. The key itself is not taken here: everybody who may look at the function could read it."},
	{Name: envCASTAIURL, Default: castai.DefaultURL,
		Values:  "the URL of CAST AI's API",
		Meaning: "where CAST AI's API is",
		Why:     "It is the same for all clusters, unless CAST AI has given you another."},
}

var checkSettings = []Setting{
	{Name: envRehearsals, Default: "preview", Values: "`preview` or `act`",
		Meaning: "what a rehearsal does: `preview` tells what would be done; `act` drains the node, but never past a budget, replaces nothing, and takes its marks away after",
		Why:     "Whoever may put events on the bus can send one: that somebody practises is no reason to move pods, unless you say so.",
		read: func(c *Config, value string) error {
			c.Policy.DrainRehearsals = value == "act"
			if !c.Policy.DrainRehearsals && value != "preview" {
				return notThis(value)
			}
			return nil
		}},
}
