package install

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// TestHooks: for each hook, the findings name who completes it.
func TestHooks(t *testing.T) {
	const kops, groupName, takeOver = "nodes-NTHLifecycleHook", "nodes.prod.example.com", " kops-spot install --take-over-nth creates the hook kops-spot"
	const either = ": completed by whichever of the function and aws-node-termination-handler (Deployment kube-system/" + NTH + ") finishes first"
	idle := []Workload{{Kind: "Deployment", Namespace: "kube-system", Name: NTH}}
	deployment := []Workload{{Kind: "DaemonSet"}, idle[0], {Kind: "Deployment", Namespace: "kube-system", Name: NTH, Ready: 1}}
	group := func(hooks ...string) awsadmin.Group { return awsadmin.Group{Name: groupName, Hooks: hooks} }
	rebalancing := func(hooks ...string) awsadmin.Group {
		return awsadmin.Group{Name: groupName, Hooks: hooks, CapacityRebalance: true}
	}
	bastion := func(hooks ...string) awsadmin.Group {
		return awsadmin.Group{Name: groupName, Hooks: hooks, Tags: map[string]string{"k8s.io/role/bastion": "1"}, CapacityRebalance: true}
	}
	for name, c := range map[string]struct {
		group   awsadmin.Group
		handled string
		nth     []Workload
		stopped bool
		want    []string
	}{
		"no hook":                    {group(), "", nil, false, nil},
		"kOps' with its handler":     {group(kops), "", deployment, false, []string{"ok " + kops + " of " + groupName + ": completed by " + NTH}},
		"kOps' left behind":          {group(kops), "", nil, false, []string{"warn nobody completes " + kops + " of " + groupName + ": each termination waits| kops-spot install --take-over-nth replaces kOps' hooks with the hook kops-spot: see docs/"}},
		"kOps' with a DaemonSet":     {group(kops), "", []Workload{{Kind: "DaemonSet"}}, false, []string{"warn nobody completes " + kops}},
		"kOps' left to the function": {group(kops), kops, nil, false, []string{"ok " + kops + " of " + groupName + ": completed by the function"}},
		"kOps' with its handler not ready": {group(kops), "", idle, false, []string{"warn nobody completes " + kops + " of " + groupName + ": Deployment kube-system/" + NTH +
			" has no ready replica, so each termination waits| repair it, or kops-spot install --take-over-nth"}},
		"kOps' with two handlers": {group(kops), kops + ",drain", deployment, false, []string{"warn " + kops + " of " + groupName + either +
			"| leave one handler: kops-spot install --set Hooks=, or --take-over-nth"}},
		"the user's with two handlers":         {group("drain"), "drain", deployment, false, []string{"warn drain of " + groupName + either}},
		"of a group to come":                   {group(), kops, deployment, false, []string{"warn " + kops + either}},
		"the function only observes, with NTH": {group("drain"), "drain", deployment, true, []string{"ok drain of " + groupName + ": completed by " + NTH}},
		"somebody's, with NTH":                 {group("theirs"), "", deployment, false, []string{"ok theirs of " + groupName + ": completed by whichever of " + NTH + " and others finishes first"}},
		"somebody's":                           {group("theirs"), "", nil, false, []string{"ok theirs of " + groupName + ": completed by others"}},
		"the user's":                           {group("drain"), "drain", nil, false, []string{"ok drain of " + groupName + ": completed by the function"}},
		"the function only observes": {group("drain"), "drain", nil, true, []string{"warn nobody completes drain of " + groupName +
			": the function is missing, only observes| kops-spot install --set Mode=act"}},
		"ours, not in Hooks":      {group(OurHook), "", nil, false, []string{"warn nobody completes kops-spot"}},
		"ours":                    {group(OurHook), OurHook, nil, false, []string{"ok kops-spot of " + groupName + ": completed by the function"}},
		"during the take-over":    {group(OurHook, kops), OurHook, deployment, false, []string{"warn kops-spot of " + groupName + either, "ok " + kops}},
		"a new group":             {group(), OurHook, nil, false, []string{"warn " + groupName + ": without the hook kops-spot| kops-spot install --take-over-nth creates it"}},
		"kOps' in Hooks":          {group(kops), kops + ",kops-spot", nil, false, []string{"ok " + kops}},
		"a new group with kOps'":  {group(kops), OurHook, deployment, false, []string{"warn kops-spot" + either, "ok " + kops}},
		"rebalancing":             {rebalancing(), "", nil, false, []string{"warn Capacity Rebalancing terminates instances of " + groupName + "|" + takeOver}},
		"rebalancing with theirs": {rebalancing("theirs"), "", nil, false, []string{"warn Capacity Rebalancing", "ok theirs"}},
		"rebalancing with NTH":    {rebalancing(kops), "", deployment, false, []string{"ok " + kops}},
		"rebalancing left behind": {rebalancing(kops), "", nil, false, []string{"warn nobody", "warn Capacity Rebalancing"}},
		"rebalancing with ours":   {rebalancing(OurHook), OurHook, nil, false, []string{"ok kops-spot"}},
		"rebalancing, new group":  {rebalancing(), OurHook, nil, false, []string{"warn " + groupName + ": without"}},
		"a bastion":               {bastion(), OurHook, nil, false, nil},
		"a bastion with kOps'":    {bastion(kops), OurHook, deployment, false, []string{"warn kops-spot" + either, "ok " + kops}},
	} {
		h := Hooks{Groups: []awsadmin.Group{c.group}, Handled: awsadmin.List(c.handled), Live: !c.stopped, NTH: c.nth}
		found := h.Findings()
		bad := len(found) != len(c.want)
		for i, f := range found {
			if bad {
				break
			}
			detail, advice, _ := strings.Cut(c.want[i], "|")
			bad = !strings.HasPrefix(string(f.Level)+" "+f.Detail, detail) || !strings.HasPrefix(" "+f.Advice, advice) || f.Name != "hooks" ||
				f.Level != change.OK && f.Advice == ""
		}
		if bad {
			t.Errorf("%s: got %+v, want %q", name, found, c.want)
		}
	}
	if found := (Hooks{Err: awsadmin.ErrDenied}).Findings(); len(found) != 1 || found[0].Detail != "could not check: access denied" {
		t.Errorf("got %+v", found)
	}
}

// TestKopsName: kOps shortens long names, and so they differ.
func TestKopsName(t *testing.T) {
	const long = "a-cluster-with-a-long-name.eu-west-1.prod.example.com"
	for _, c := range []struct {
		name  string
		limit int
		want  string
	}{
		{"prod.example.com", 40, "prod.example.com"},
		{long, len(long), long},
		{long, 40, "a-cluster-with-a-long-name.eu-wes-50vg1t"},
	} {
		if got := kopsName(c.name, c.limit); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestWithOurHook(t *testing.T) {
	for hooks, want := range map[string]string{"": "kops-spot", "kops-spot": "kops-spot", "drain, x": "drain,x,kops-spot", "kops-spot,x": "kops-spot,x"} {
		if got := fmt.Sprint(WithOurHook(hooks)); got != want {
			t.Errorf("%q: got %q, want %q", hooks, got, want)
		}
	}
}

// scalingGroup is a stub of an Auto Scaling group.
type scalingGroup struct {
	hooks   []string
	waiting map[string]time.Duration // instances in Terminating:Wait, and until when
	began   time.Time
	deleted time.Duration // when a hook was
}

func (s *scalingGroup) account() *awsadmin.Account {
	return awsadmin.New(aws.Config{Region: "eu-west-1", HTTPClient: s, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
}

func (s *scalingGroup) Do(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	action, answer := form.Get("Action"), ""
	switch action {
	case "DescribeAutoScalingGroups":
		if form.Get("AutoScalingGroupNames.member.1") == "deleted" {
			break
		}
		answer = "<AutoScalingGroups><member><AutoScalingGroupName>nodes.prod.example.com</AutoScalingGroupName><Instances>" +
			"<member><InstanceId>i-0</InstanceId><LifecycleState>InService</LifecycleState></member>"
		for id, until := range s.waiting {
			if late := strings.HasSuffix(id, "late"); time.Since(s.began) < until && (!late || time.Since(s.began) > 0) {
				answer += "<member><InstanceId>" + id + "</InstanceId><LifecycleState>Terminating:Wait</LifecycleState></member>"
			}
		}
		answer += "</Instances><Tags><member><Key>KubernetesCluster</Key><Value>prod.example.com</Value></member></Tags></member></AutoScalingGroups>"
	case "DescribeLifecycleHooks":
		for _, hook := range append([]string{"launching"}, s.hooks...) {
			transition := map[bool]string{true: "LAUNCHING", false: "TERMINATING"}[hook == "launching"]
			answer += "<member><LifecycleHookName>" + hook + "</LifecycleHookName><LifecycleTransition>autoscaling:EC2_INSTANCE_" + transition +
				"</LifecycleTransition></member>"
		}
		answer = "<LifecycleHooks>" + answer + "</LifecycleHooks>"
	case "DeleteLifecycleHook":
		if !slices.Contains(s.hooks, form.Get("LifecycleHookName")) {
			text := "<ErrorResponse><Error><Code>ValidationError</Code><Message>No Lifecycle Hook found with name: kops-spot</Message></Error></ErrorResponse>"
			return &http.Response{StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"text/xml"}}, Request: r,
				Body: io.NopCloser(strings.NewReader(text))}, nil
		}
		s.deleted = time.Since(s.began)
		s.hooks = slices.DeleteFunc(s.hooks, func(hook string) bool { return hook == form.Get("LifecycleHookName") })
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, Request: r,
		Body: io.NopCloser(strings.NewReader("<R><" + action + "Result>" + answer + "</" + action + "Result></R>"))}, nil
}

// TestDeleteHook: a hook is deleted only when nobody needs it any more. Terminations that begin later do not delay that if
// another hook holds them.
func TestDeleteHook(t *testing.T) {
	const kops = "nodes-NTHLifecycleHook"
	for name, c := range map[string]struct {
		hooks   []string
		waiting map[string]time.Duration
		hook    string // to delete
		after   time.Duration
		err     string
	}{
		"nobody waits":              {[]string{kops, OurHook}, nil, kops, 0, ""},
		"an instance waits":         {[]string{kops, OurHook}, map[string]time.Duration{"i-1": 42 * time.Second, "i-2": time.Minute, "i-late": time.Hour}, kops, time.Minute, ""},
		"for another hook":          {[]string{kops, OurHook}, map[string]time.Duration{"i-1": time.Hour}, kops, 6 * time.Minute, ""},
		"ours is gone":              {[]string{kops}, map[string]time.Duration{"i-1": time.Minute}, kops, 0, "has lost the hook kops-spot"},
		"ours":                      {[]string{OurHook}, map[string]time.Duration{"i-1": time.Minute}, OurHook, time.Minute, ""},
		"ours, and one more begins": {[]string{OurHook}, map[string]time.Duration{"i-1": time.Minute, "i-late": 2 * time.Minute}, OurHook, 2 * time.Minute, ""},
		"ours, and more begin":      {[]string{OurHook}, map[string]time.Duration{"i-1": time.Minute, "i-late": time.Hour}, OurHook, 0, "i-late of group nodes.prod.example.com is still"},
		"ours, and the user's":      {[]string{"drain", OurHook}, nil, OurHook, 0, ""},
		"ours, with heartbeat":      {[]string{OurHook}, map[string]time.Duration{"i-1": time.Hour}, OurHook, 0, "i-1 of group nodes.prod.example.com is still in Terminating:Wait"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &scalingGroup{hooks: c.hooks, waiting: map[string]time.Duration{}, began: time.Now()}
			maps.Copy(s.waiting, c.waiting)
			said := ""
			r := &Deployment{Say: func(e awsadmin.StackEvent) { said += e.Reason }, AWS: s.account(),
				Spec: Spec{Values: iam.Values{Cluster: "prod.example.com"}}}
			var p Plan
			var err error
			if c.hook == OurHook {
				err = r.planHookRemoval(t.Context(), &p, []string{"drain", OurHook})
			} else {
				groups, _ := groupsOf(t.Context(), r.AWS, "prod.example.com")
				h := Hooks{Handled: []string{OurHook}}
				p.deleteHook(groups[0], kops, func(g awsadmin.Group) bool { return h.ours(g) != "" })
			}
			if slices.Contains(c.hooks, "drain") {
				last := len(p.Changes) - 1
				if left := p.Changes[last]; left.Row() != "leave lifecycle hook nodes.prod.example.com/drain" || !strings.HasPrefix(left.Why, "nobody completes it after this") {
					t.Errorf("%s: %+v", name, left)
				}
				p.Changes = p.Changes[:last]
			}
			if err != nil || len(p.Changes) != 1 || (p.Changes[0].Why != "") != (len(c.waiting) > 0) {
				t.Fatalf("%s: %v, %+v", name, err, p.Changes)
			}
			err = r.Apply(t.Context(), p)
			if (said != "") != (len(c.waiting) > 0) {
				t.Errorf("%s: said %q", name, said)
			}
			gone := !slices.Contains(s.hooks, c.hook)
			if gone != (c.err == "") || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) ||
				s.deleted < c.after || s.deleted > c.after+10*time.Second {
				t.Errorf("%s: %v; deleted %v after %s, want it after %s", name, err, gone, s.deleted, c.after)
			}
		})
	}
}

// TestDeleteHooks: all groups wait within one time limit, and a group or a hook that was deleted meanwhile counts as done.
func TestDeleteHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scalingGroup{hooks: []string{OurHook}, waiting: map[string]time.Duration{"i-1": time.Hour}, began: time.Now()}
		r := &Deployment{Say: func(awsadmin.StackEvent) {}, AWS: s.account()}
		var p Plan
		for _, group := range []string{"nodes.prod.example.com", "batch.prod.example.com", "deleted"} {
			p.deleteHook(awsadmin.Group{Name: group}, OurHook, func(awsadmin.Group) bool { return true })
		}
		if err := r.Apply(t.Context(), p); err != nil || len(s.hooks) > 0 || s.deleted > 7*time.Minute {
			t.Errorf("%v; %q after %s", err, s.hooks, s.deleted)
		}
	})
}

// queueStub is a stub of EventBridge and SQS with a queue.
type queueStub struct {
	owner string // of the queue
	rules map[string]queueRule
}

type queueRule struct {
	owner   string
	targets []string
}

func (q queueStub) Do(r *http.Request) (*http.Response, error) {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in struct{ Name, Rule, TargetArn, ResourceARN string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	name := in.Name + in.Rule + strings.TrimPrefix(in.ResourceARN, "arn:")
	rule, found := q.rules[name]
	status, out := http.StatusOK, map[string]any{}
	type object = map[string]string
	switch action {
	case "ListRuleNamesByTarget":
		var names []string
		for name, rule := range q.rules {
			if slices.Contains(rule.targets, in.TargetArn) {
				names = append(names, name)
			}
		}
		out["RuleNames"] = names
	case "DescribeRule":
		if out["Arn"] = "arn:" + name; !found {
			status, out = http.StatusBadRequest, map[string]any{"__type": "ResourceNotFoundException", "message": "no"}
		}
	case "ListTargetsByRule":
		var targets []object
		for _, arn := range rule.targets {
			targets = append(targets, object{"Id": "id", "Arn": arn})
		}
		out["Targets"] = targets
	case "ListTagsForResource":
		out["Tags"] = []object{{"Key": "KubernetesCluster", "Value": rule.owner}}
	case "GetQueueUrl":
		out["QueueUrl"] = "https://sqs/queue"
	case "ListQueueTags":
		out["Tags"] = object{"KubernetesCluster": q.owner}
	}
	body, _ := json.Marshal(out)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}

// TestQueueRemoval: the queue and the rules are deleted only if they are this cluster's, and the queue only if no rule
// sends events to it.
func TestQueueRemoval(t *testing.T) {
	const cluster, other, queue, arn = "prod.example.com", "prod-example.com", "prod-example-com-nth", "arn:aws:sqs:eu-west-1:1:prod-example-com-nth"
	const rule, why = cluster + "-ASGLifecycle", "its tag KubernetesCluster is not " + cluster
	deleted := "delete SQS queue " + queue + ": kOps' node termination handler reads it"
	for name, c := range map[string]struct {
		owner string
		rules map[string]queueRule
		want  []string
	}{
		"ours": {cluster, map[string]queueRule{rule: {cluster, []string{arn}}}, []string{"change EventBridge rule " + rule + ": kOps' queue is removed from its targets",
			"delete EventBridge rule " + rule + ": it sends events to kOps' queue", deleted}},
		"by another name":     {cluster, map[string]queueRule{"long-ASGLifecycle": {cluster, []string{arn}}}, []string{"change EventBridge rule long-", "delete EventBridge rule long-", deleted}},
		"without a target":    {cluster, map[string]queueRule{rule: {owner: cluster}}, []string{"delete EventBridge rule " + rule, deleted}},
		"another target":      {cluster, map[string]queueRule{rule: {cluster, []string{arn, "x"}}}, []string{"leave EventBridge rule " + rule + ": it has a target other than kOps' queue", "leave SQS queue " + queue + ": it still receives events of " + rule}},
		"another target only": {cluster, map[string]queueRule{rule: {cluster, []string{"x"}}}, []string{"leave EventBridge rule " + rule, deleted}},
		"another cluster's":   {other, map[string]queueRule{other + "-ASGLifecycle": {other, []string{arn}}}, []string{"leave EventBridge rule " + other + "-ASGLifecycle: " + why, "leave SQS queue " + queue + ": " + why}},
		"shared":              {cluster, map[string]queueRule{other + "-ASGLifecycle": {other, []string{arn}}}, []string{"leave EventBridge rule " + other, "leave SQS queue " + queue + ": it still receives"}},
		"without a tag":       {"", nil, []string{"leave SQS queue " + queue + ": " + why}},
	} {
		r := &Deployment{Spec: Spec{Values: iam.Values{Cluster: cluster, Partition: "aws", Region: "eu-west-1", Account: "1"}},
			AWS: awsadmin.New(aws.Config{Region: "eu-west-1", HTTPClient: queueStub{c.owner, c.rules}, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})}
		var p Plan
		err := r.planQueueRemoval(t.Context(), &p)
		var got []string
		for _, row := range p.Changes {
			got = append(got, row.Row()+": "+row.Why)
		}
		if err != nil || !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: %v, %q, want %q", name, err, got, c.want)
		}
	}
}

// stateStore is a stub of a bucket with files of a cluster by name.
type stateStore map[string]string

func (s stateStore) Do(r *http.Request) (*http.Response, error) {
	text, found := s[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
	status := http.StatusOK
	if !found {
		status, text = http.StatusNotFound, "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"text/xml"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(text))}, nil
}

// TestCheckNTHDisabled: a take-over needs proof that kOps does not restore its handler.
func TestCheckNTHDisabled(t *testing.T) {
	const on, off, absent = "nodeTerminationHandler: {enabled: true}", "nodeTerminationHandler: {enabled: false, version: v1}", "api: {}"
	const set = "set spec.nodeTerminationHandler.enabled: false (in v1alpha3: spec.cloudProvider.aws.nodeTerminationHandler.enabled)"
	for _, c := range []struct{ config, completed, want string }{
		{off, off, ""},
		{off, absent, ""},
		{"karpenter: {enabled: true}", off, ""},
		{"karpenter: {enabled: true}, " + on, on, set},
		{on, on, "config enables it: with kops edit cluster --name prod.example.com, " + set},
		{on, off, set}, // the next update restores it
		{absent, on, set},
		{absent, absent, "kOps 1.28 and later enable it by default"},
		{off, on, "not yet in the cluster: run kops update cluster --name prod.example.com --yes"},
		{off, "", "cluster-completed.spec does not exist: without the specification"},
		{"", off, "config does not exist: without the specification"},
	} {
		files := stateStore{}
		for name, spec := range map[string]string{"config": c.config, specification: c.completed} {
			if spec != "" {
				files[name] = "metadata: {name: prod.example.com}\nspec: {" + spec + "}"
			}
		}
		site := Site{Name: "prod.example.com", Account: "123456789012", AWS: awsadmin.New(aws.Config{Region: "eu-west-1", HTTPClient: files,
			Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})}
		err := Store("store/kops").CheckNTHDisabled(t.Context(), site)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q, completed %q: got %v, want %q", c.config, c.completed, err, c.want)
		}
		site.Name = "staging.example.com"
		if err := Store("store").CheckNTHDisabled(t.Context(), site); err == nil {
			t.Errorf("%q: accepted for another cluster", c.config)
		}
	}
	if err := Store("").CheckNTHDisabled(t.Context(), Site{}); err == nil || !strings.Contains(err.Error(), "set --state to the kOps state store") {
		t.Errorf("without a store: %v", err)
	}
}
