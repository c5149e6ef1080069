package install

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
)

// HooksFinding is the name of findings about lifecycle hooks.
const HooksFinding = "hooks"

// OurHook is the name of the lifecycle hooks that a take-over creates.
const OurHook = "kops-spot"

const (
	NTH         = "aws-node-termination-handler" // its image, and kOps' name of its Deployment or DaemonSet
	kindHook    = "lifecycle hook"
	kindRule    = "EventBridge rule"
	kindQueue   = "SQS queue"
	hookTimeout = 5 * time.Minute // of a hook without heartbeats: ours and kOps'
)

// Hooks are the lifecycle hooks that delay the terminations of a cluster's instances, and who completes them.
type Hooks struct {
	Groups  []awsadmin.Group // the cluster's
	Handled []string         // in the stack's parameter Hooks
	Live    bool             // the function receives their events and acts
	NTH     []Workload       // of aws-node-termination-handler
	Err     error            // why they are unknown
}

// FindHooks returns the hooks of a cluster. handled is the stack's parameter Hooks; live is as in Hooks.
func FindHooks(ctx context.Context, account *awsadmin.Account, cluster dynamic.Interface, name, handled string,
	live bool) Hooks {
	h := Hooks{Handled: awsadmin.List(handled), Live: live}
	if h.Groups, h.Err = groupsOf(ctx, account, name); h.Err == nil {
		var found map[string][]Workload
		found, h.Err = findWorkloads(ctx, cluster)
		h.NTH = found[NTH]
	}
	return h
}

// groupsOf returns the groups of a cluster, without those of another one whose name ends in the same way.
func groupsOf(ctx context.Context, account *awsadmin.Account, cluster string) ([]awsadmin.Group, error) {
	all, err := account.Groups(ctx, spot.TagCluster, cluster)
	return slices.DeleteFunc(all, func(g awsadmin.Group) bool {
		return spot.DefaultPolicy(cluster).OtherGroupReason(g.Name, g.Tags) != ""
	}), err
}

// ours returns the group's hook that the function handles, other than kOps'; empty if there is none.
func (h Hooks) ours(g awsadmin.Group) string {
	for _, hook := range g.Hooks {
		if slices.Contains(h.Handled, hook) && !spot.IsKopsHook(hook) {
			return hook
		}
	}
	return ""
}

// isBastion reports whether the instances of a group are no nodes.
func isBastion(g awsadmin.Group) bool { return g.Tags["k8s.io/role/bastion"] != "" }

// queueReader returns the Deployment of aws-node-termination-handler, one with ready replicas if there is one; nil if
// there is none. If it is ready, it completes the actions of all hooks: its queue receives them, whatever their names. A
// DaemonSet does not read the queue.
func (h Hooks) queueReader() (reader *Workload) {
	for i, w := range h.NTH {
		if w.Kind == "Deployment" && (reader == nil || w.Ready > reader.Ready) {
			reader = &h.NTH[i]
		}
	}
	return reader
}

// Findings returns what is wrong with the hooks, or who completes them.
func (h Hooks) Findings() (found change.Findings) {
	add := func(level change.Level, detail string, names []string, advice string) {
		if len(names) > 0 {
			found = append(found, change.Finding{Level: level, Name: HooksFinding,
				Detail: fmt.Sprintf(detail, strings.Join(names, ", ")), Advice: advice})
		}
	}
	if h.Err != nil {
		return change.Findings{{Level: change.Warn, Name: HooksFinding, Detail: "could not check: " + h.Err.Error()}}
	}
	const takeOver = "kops-spot install --take-over-nth creates the hook " + OurHook + ": see docs/migrating-from-nth.md"
	var ours, theirs, both, stopped, nobodys, others, rebalanced, without []string
	reader, idle, fix := h.queueReader(), "", ""
	if reader != nil && reader.Ready == 0 {
		idle, fix, reader = reader.String()+" has no ready replica, so ", "repair it, or ", nil
	}
	for _, g := range h.Groups {
		drained := false
		for _, hook := range g.Hooks {
			name, handled := hook+" of "+g.Name, slices.Contains(h.Handled, hook)
			known := handled || spot.IsKopsHook(hook) || hook == OurHook
			drained = drained || handled && h.Live || reader != nil
			switch {
			case handled && h.Live && reader != nil:
				both = append(both, name)
			case handled && h.Live:
				ours = append(ours, name)
			case known && reader != nil:
				theirs = append(theirs, name)
			case handled:
				stopped = append(stopped, name)
			case known:
				nobodys = append(nobodys, name)
			default:
				others = append(others, name)
			}
		}
		switch {
		case drained, isBastion(g):
		case slices.Contains(h.Handled, OurHook) && h.ours(g) == "":
			without = append(without, g.Name)
		case g.CapacityRebalance:
			rebalanced = append(rebalanced, g.Name)
		}
	}
	byOthers := "others"
	if reader != nil {
		if len(both) == 0 && h.Live { // groups that come later
			both = h.Handled
		}
		byOthers = "whichever of " + NTH + " and others finishes first"
		add(change.Warn, "%s: completed by whichever of the function and "+NTH+" ("+reader.String()+") finishes first", both,
			"leave one handler: kops-spot install --set Hooks=, or --take-over-nth: see docs/migrating-from-nth.md")
	}
	add(change.Warn, "nobody completes %s: the function is missing, only observes, or does not receive the events", stopped,
		"kops-spot install --set Mode=act, unless a link above has failed")
	add(change.Warn, "nobody completes %s: "+idle+"each termination waits for the hook's timeout, and no pod is evicted", nobodys,
		fix+"kops-spot install --take-over-nth replaces kOps' hooks with the hook "+OurHook+": see docs/migrating-from-nth.md")
	add(change.Warn, "Capacity Rebalancing terminates instances of %s, and no hook delays that until their nodes are drained",
		rebalanced, takeOver)
	add(change.Warn, "%s: without the hook "+OurHook+", the nodes that Auto Scaling terminates are not drained", without,
		"kops-spot install --take-over-nth creates it")
	add(change.OK, "%s: completed by "+byOthers, others, "")
	add(change.OK, "%s: completed by "+NTH, theirs, "")
	add(change.OK, "%s: completed by the function", ours, "")
	return found
}

// TakeOver replaces kOps' node termination handler.
type TakeOver struct {
	Create Plan // our hooks
	Remove Plan // kOps' resources, once our hooks are handled
}

// PlanTakeOver plans it. The handler is deleted after all of its hooks, because until then it completes them.
func (r *Deployment) PlanTakeOver(ctx context.Context, h Hooks, cluster dynamic.Interface) (t TakeOver, err error) {
	for _, g := range h.Groups {
		switch hook := h.ours(g); {
		case isBastion(g):
		case hook != "":
			t.Create.add(change.Keep, kindHook, g.Name+"/"+hook, "the function completes it", nil)
		default:
			t.Create.addCall(change.Create, kindHook, g.Name+"/"+OurHook, "the function completes it",
				awsadmin.PutLifecycleHook(g.Name, OurHook, int32(hookTimeout.Seconds())))
		}
	}
	for _, g := range h.Groups {
		for _, hook := range slices.DeleteFunc(slices.Clone(g.Hooks), func(hook string) bool { return !spot.IsKopsHook(hook) }) {
			t.Remove.deleteHook(g, hook, func(now awsadmin.Group) bool { return isBastion(now) || h.ours(now) != "" })
		}
	}
	for _, w := range h.NTH {
		if w.Namespace != metav1.NamespaceSystem || w.Name != NTH {
			t.Remove.add(change.Leave, w.Kind, w.Namespace+"/"+w.Name, "kOps has not created it", nil)
			continue
		}
		t.Remove.add(change.Delete, w.Kind, w.Namespace+"/"+w.Name, "kOps' node termination handler",
			func(ctx context.Context, _ *Deployment) error { return w.delete(ctx, cluster) })
	}
	return t, r.planQueueRemoval(ctx, &t.Remove)
}

// planQueueRemoval plans to delete kOps' queue, and the rules that send events to it. Clusters may have the same name of
// the queue, so kOps' tag says whose each of them is.
func (r *Deployment) planQueueRemoval(ctx context.Context, p *Plan) error {
	w := r.Spec
	queue := kopsName(strings.ReplaceAll(w.Cluster, ".", "-"), 75) + "-nth"
	arn := "arn:" + w.Partition + ":sqs:" + w.Region + ":" + w.Account + ":" + queue
	var left []string // rules that an interrupted run may have left without a target
	for _, event := range []string{"ASGLifecycle", "SpotInterruption", "InstanceStateChange", "InstanceScheduledChange",
		"RebalanceRecommendation"} {
		left = append(left, kopsName(w.Cluster, 40)+"-"+event)
	}
	rules, err := r.AWS.RulesTo(ctx, arn, left...)
	if err != nil {
		return err
	}
	var using []string
	for _, rule := range rules {
		tags, err := r.AWS.RuleTags(ctx, rule)
		if err != nil {
			return err
		}
		var ids []string
		for _, t := range rule.Targets {
			if t.ARN == arn {
				ids = append(ids, t.ID)
			}
		}
		why := ""
		switch {
		case tags[spot.TagCluster] != w.Cluster:
			why = "its tag " + spot.TagCluster + " is not " + w.Cluster
		case len(ids) < len(rule.Targets):
			why = "it has a target other than kOps' queue"
		}
		if why != "" {
			p.add(change.Leave, kindRule, rule.Name, why, nil)
			if len(ids) > 0 {
				using = append(using, rule.Name)
			}
			continue
		}
		if len(ids) > 0 {
			p.addCall(change.Update, kindRule, rule.Name, "kOps' queue is removed from its targets",
				awsadmin.RemoveTargets(rule.Name, ids))
		}
		p.addCall(change.Delete, kindRule, rule.Name, "it sends events to kOps' queue", awsadmin.DeleteRule(rule.Name))
	}
	switch url, tags, err := r.AWS.Queue(ctx, queue); {
	case err != nil || url == "":
		return err
	case tags[spot.TagCluster] != w.Cluster:
		p.add(change.Leave, kindQueue, queue, "its tag "+spot.TagCluster+" is not "+w.Cluster, nil)
	case len(using) > 0:
		p.add(change.Leave, kindQueue, queue, "it still receives events of "+strings.Join(using, ", "), nil)
	default:
		p.addCall(change.Delete, kindQueue, queue, "kOps' node termination handler reads it", awsadmin.DeleteQueue(url))
	}
	return nil
}

// deleteHook adds the row that deletes a hook of a group. Deleting it ends the drains of the instances that it holds, so
// the write waits for them first. replaced reports whether the group has another hook; nil if it needs none.
func (p *Plan) deleteHook(g awsadmin.Group, hook string, replaced func(awsadmin.Group) bool) {
	if p.terminations == nil {
		p.terminations = &terminations{first: map[string][]string{}}
	}
	now := p.terminations
	now.groups = append(now.groups, g.Name)
	why := ""
	if len(g.Waiting) > 0 {
		why = "after the termination of " + strings.Join(g.Waiting, ", ")
	}
	p.add(change.Delete, kindHook, g.Name+"/"+hook, why, func(ctx context.Context, r *Deployment) error {
		if err := now.await(ctx, r, g.Name, replaced); err != nil {
			return err
		}
		return r.AWS.Do(ctx, awsadmin.DeleteLifecycleHook(g.Name, hook))
	})
}

// terminations are those that the hooks of a plan delay. All groups share one time limit.
type terminations struct {
	groups []string
	began  time.Time
	first  map[string][]string // instances that waited then, by group
}

// await waits until no instance of a group is left that the hook holds. If another hook replaces it, that one also holds
// instances that come later, and by the end of the timeout, only others hold an instance.
func (t *terminations) await(ctx context.Context, r *Deployment, group string, replaced func(awsadmin.Group) bool) error {
	if t.began.IsZero() {
		for _, name := range t.groups {
			g, _, err := r.AWS.Group(ctx, name)
			if err != nil {
				return err
			}
			t.first[name] = g.Waiting
		}
		t.began = time.Now()
	}
	for said := ""; ; {
		now, exists, err := r.AWS.Group(ctx, group)
		if err != nil || !exists {
			return err
		}
		waiting := now.Waiting
		if replaced != nil {
			waiting = slices.DeleteFunc(waiting, func(id string) bool { return !slices.Contains(t.first[group], id) })
		}
		ids := strings.Join(waiting, ", ")
		over := ids == "" || time.Since(t.began) > hookTimeout+time.Minute
		switch {
		case over && replaced != nil && !replaced(now):
			return fmt.Errorf("group %s has lost the hook %s: run this again", group, OurHook)
		case ids == "", over && replaced != nil:
			return nil
		case over: // the function sends heartbeats, or another hook holds it
			return fmt.Errorf("%s of group %s is still in Terminating:Wait: run this again when it is terminated", ids, group)
		case ids != said:
			r.Say(awsadmin.StackEvent{Status: "RETRY", LogicalID: group, Reason: "waiting for the termination of " + ids})
			said = ids
		}
		if err := awsadmin.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// planHookRemoval deletes the hooks of a take-over. Without the function, nobody would complete them. Others that the
// function handles stay.
func (r *Deployment) planHookRemoval(ctx context.Context, p *Plan, handled []string) error {
	groups, err := groupsOf(ctx, r.AWS, r.Spec.Cluster)
	for _, g := range groups {
		if slices.Contains(g.Hooks, OurHook) {
			p.deleteHook(g, OurHook, nil)
		}
	}
	for _, g := range groups {
		for _, hook := range g.Hooks {
			if hook != OurHook && slices.Contains(handled, hook) {
				p.add(change.Leave, kindHook, g.Name+"/"+hook,
					"nobody completes it after this: delete it, or give it another handler", nil)
			}
		}
	}
	return err
}

// delete deletes the workload, unless somebody has replaced it.
func (w Workload) delete(ctx context.Context, cluster dynamic.Interface) error {
	err := cluster.Resource(workloads[w.Kind]).Namespace(w.Namespace).Delete(ctx, w.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &w.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return kube.Advise(err)
}

// kopsName shortens a cluster's name in the same way as kOps for names of AWS resources.
func kopsName(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	hash := fnv.New32a()
	hash.Write([]byte(name))
	return name[:limit-7] + "-" + strings.ToLower(base32.HexEncoding.EncodeToString(hash.Sum(nil)))[:6]
}

// WithOurHook adds the hook of a take-over to the value of the parameter Hooks.
func WithOurHook(hooks string) string {
	names := awsadmin.List(hooks)
	if !slices.Contains(names, OurHook) {
		names = append(names, OurHook)
	}
	return strings.Join(names, ",")
}

// CheckNTHDisabled returns an error if kOps would restore what a take-over removes, or if that is not known.
func (s Store) CheckNTHDisabled(ctx context.Context, in Site) error {
	const flag = "--take-over-nth: "
	if s == "" {
		return errors.New(flag + "the kOps state store is unknown, and so is whether kOps would restore its node termination " +
			"handler: set --state to the kOps state store")
	}
	// The store has version v1alpha2. kOps writes defaults only to the completed specification.
	var given, completed struct {
		Metadata struct{ Name string }
		Spec     struct {
			NodeTerminationHandler struct{ Enabled *bool } `yaml:"nodeTerminationHandler"`
			Karpenter              struct{ Enabled bool }
		}
	}
	name, err := s.parse(ctx, in, "config", &given)
	if err == nil {
		_, err = s.parse(ctx, in, specification, &completed)
	}
	if err != nil {
		return fmt.Errorf(flag+"%w: without the specification, it is not known whether kOps would restore its node "+
			"termination handler: set --state to the kOps state store, and allow s3:GetObject on it", err)
	}
	if given.Metadata.Name != in.Name {
		return fmt.Errorf(flag+"%s belongs to the cluster %q and not to %s: set --state to the kOps state store", name,
			given.Metadata.Name, in.Name)
	}
	enabled, update := given.Spec.NodeTerminationHandler.Enabled, "kops update cluster --name "+in.Name+" --yes"
	why := name + " enables it"
	switch applied := completed.Spec.NodeTerminationHandler.Enabled; {
	case enabled == nil && given.Spec.Karpenter.Enabled, enabled != nil && !*enabled:
		if applied == nil || !*applied {
			return nil
		}
		return fmt.Errorf(flag+"kOps' node termination handler is disabled in the specification, but not yet in the cluster: "+
			"run %s, then run this again", update)
	case enabled == nil:
		why = name + " does not disable it, and kOps 1.28 and later enable it by default"
	}
	return fmt.Errorf(flag+"kOps would restore its node termination handler, because %s: with kops edit cluster --name %s, "+
		"set spec.nodeTerminationHandler.enabled: false (in v1alpha3: spec.cloudProvider.aws.nodeTerminationHandler.enabled), "+
		"then run %s, then run this again", why, in.Name, update)
}
