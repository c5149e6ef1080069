package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

// Worker is a worker node and its instance group.
type Worker struct {
	Node, Group string // Group is empty if it is unknown
	OS          string // status.nodeInfo.osImage
	Ready, Spot bool
}

// shutdownPeriods are the settings of a kubelet's graceful node shutdown, in kOps' spec.kubelet and in configz.
type shutdownPeriods struct {
	Total      string `yaml:"shutdownGracePeriod"`
	Critical   string `yaml:"shutdownGracePeriodCriticalPods"`
	ByPriority []struct {
		Priority int64 `yaml:"priority"`
		Seconds  int64 `yaml:"shutdownGracePeriodSeconds"`
	} `yaml:"shutdownGracePeriodByPodPriority"`
}

// ordinary returns the time for ordinary pods, rounded down to seconds as by the kubelet, and the time for all pods.
// With periods by priority, the shortest one of ordinary pods counts.
func (p shutdownPeriods) ordinary() (window, total time.Duration, err error) {
	if len(p.ByPriority) > 0 {
		least, shortest, lowest := int64(math.MaxInt64), int64(math.MaxInt64), int64(0)
		for _, c := range p.ByPriority {
			total += time.Duration(c.Seconds) * time.Second
			if c.Priority < spot.CriticalPriority {
				shortest = min(shortest, c.Seconds)
			}
			if c.Priority < least { // also of the pods with a lower priority
				least, lowest = c.Priority, c.Seconds
			}
		}
		return time.Duration(min(shortest, lowest)) * time.Second, total, nil
	}
	total, err = time.ParseDuration(cmp.Or(p.Total, "0s"))
	critical, wrong := time.ParseDuration(cmp.Or(p.Critical, "0s"))
	if err = errors.Join(err, wrong); err != nil || critical > total {
		return 0, total, err
	}
	return (total - critical).Truncate(time.Second), total, nil
}

// A window is how long the kubelets of an instance group delay the shutdown for ordinary pods.
type window struct {
	group, from string
	length      time.Duration
	inhibited   bool // by logind
	updating    bool // the state store and the running kubelet differ
	err         error
}

func (is *window) set(p shutdownPeriods, os string, err error) {
	if is.err = err; err != nil {
		return
	}
	var total time.Duration
	is.length, total, is.err = p.ordinary()
	if is.inhibited = total > inhibitDelay && strings.HasPrefix(os, "Ubuntu"); is.inhibited {
		is.length = 0
	}
}

// inhibitDelay is logind's InhibitDelayMaxSec on Ubuntu (https://kops.sigs.k8s.io/cluster_spec/). The kubelet cannot
// raise it there, and fails to inhibit the shutdown for longer.
const inhibitDelay = 30 * time.Second

// readWindow reads a window from the state store, else from a kubelet. If the function relies on it, it reads both: until
// an update of the nodes is rolled out, the shorter one counts.
func (s Site) readWindow(ctx context.Context, specified *spec, w Worker) window {
	group := cmp.Or(w.Group, "nodes without an instance group")
	stored, running := window{group: group, from: "state store"}, window{group: group, from: "kubelet of " + w.Node}
	known := false
	if specified != nil && !specified.incomplete && w.Group != "" {
		var group struct {
			Spec struct{ Kubelet shutdownPeriods }
		}
		group.Spec.Kubelet = specified.Spec.Kubelet
		_, err := s.Store.parse(ctx, s, "instancegroup/"+w.Group, &group) // over the cluster's
		stored.set(group.Spec.Kubelet, w.OS, err)
		known = err == nil
	}
	if grace, _ := time.ParseDuration(s.Given["ShutdownGrace"]); known && grace <= 0 {
		return stored
	}
	periods, err := readKubelet(ctx, s.Login, w)
	running.set(periods, w.OS, err)
	switch {
	case !known:
		return running
	case stored.err != nil, running.err != nil:
		return stored
	}
	updating := running.length != stored.length
	if running.length < stored.length {
		stored = running
	}
	stored.updating = updating
	return stored
}

// readKubelet reads a kubelet's configz through the API server. Only the operator may do that: with nodes/proxy, the
// function could run commands in every pod.
func readKubelet(ctx context.Context, login *rest.Config, w Worker) (p shutdownPeriods, err error) {
	if !w.Ready {
		return p, fmt.Errorf("node %s is not ready", w.Node)
	}
	client, err := rest.UnversionedRESTClientFor(dynamic.ConfigFor(login))
	if err != nil {
		return p, fmt.Errorf("preparing the client of %s: %w", login.Host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	response := client.Get().AbsPath("/api/v1/nodes", w.Node, "proxy", "configz").Do(ctx)
	if err := response.Error(); err != nil { // Raw's does not have the message
		return p, fmt.Errorf("reading configz of node %s: %w", w.Node, err)
	}
	body, _ := response.Raw()
	var configz struct{ KubeletConfig *shutdownPeriods }
	if err := yaml.Unmarshal(body, &configz); err != nil || configz.KubeletConfig == nil {
		return p, fmt.Errorf("reading configz of node %s: its response is unknown", w.Node)
	}
	return *configz.KubeletConfig, nil
}

// CheckShutdown checks that the kubelets give pods the time that the setting ShutdownGrace relies on.
func CheckShutdown(ctx context.Context, s Site) (change.Findings, error) {
	specified, _ := s.Store.read(ctx, s, &Discovery{}) // else from the kubelets
	return shutdown(ctx, s, specified)
}

// shutdown finds out for how long the kubelets delay an instance's shutdown for ordinary pods. It reads at most one
// kubelet of each instance group, of a Spot instance if there is one.
func shutdown(ctx context.Context, s Site, specified *spec) (change.Findings, error) {
	byGroup := map[string]Worker{}
	for _, w := range s.Workers {
		if is, known := byGroup[w.Group]; !known || !is.Ready && w.Ready || is.Ready == w.Ready && !is.Spot && w.Spot {
			byGroup[w.Group] = w
		}
	}
	groups := slices.Sorted(maps.Keys(byGroup))
	windows := make([]window, len(groups))
	var reading sync.WaitGroup
	for i, group := range groups {
		reading.Go(func() { windows[i] = s.readWindow(ctx, specified, byGroup[group]) })
	}
	if reading.Wait(); ctx.Err() != nil || len(windows) == 0 {
		return nil, ctx.Err()
	}
	amazonVPC := specified != nil && specified.Spec.Networking.AmazonVPC != nil
	return change.Findings{judgeShutdown(windows, s.Given["ShutdownGrace"], amazonVPC)}, nil
}

// judgeShutdown compares the windows with the setting ShutdownGrace. The shortest one counts.
func judgeShutdown(windows []window, setting string, amazonVPC bool) change.Finding {
	grace, _ := time.ParseDuration(setting) // CloudFormation checks it; empty is 0
	slices.SortStableFunc(windows, func(a, b window) int {
		return cmp.Or(cmp.Compare(a.length, b.length), strings.Compare(a.from, b.from))
	})
	var known []window
	var unknown, short, updating []string
	var why error
	inhibited := false
	for _, w := range windows {
		last := len(known) - 1
		switch {
		case w.err != nil:
			unknown, why = append(unknown, w.group), w.err
			continue
		case last >= 0 && known[last].length == w.length && known[last].from == w.from:
			known[last].group += ", " + w.group
		default:
			known = append(known, w)
		}
		if w.updating {
			updating = append(updating, w.group)
		}
		if inhibited = inhibited || w.inhibited; w.length < grace {
			short = append(short, w.group)
		}
	}
	var times, detail []string
	for _, w := range known {
		times = append(times, fmt.Sprintf("%g s in %s (%s)", w.length.Seconds(), w.group, w.from))
	}
	shortest := time.Duration(0)
	if len(known) > 0 {
		shortest = min(known[0].length, spot.MaxShutdownGrace)
		detail = append(detail, "at an instance's shutdown, its kubelet gives ordinary pods "+strings.Join(times, ", "))
	}
	if inhibited {
		detail = append(detail, fmt.Sprintf("on Ubuntu, a kubelet cannot delay the shutdown for more than %s", inhibitDelay))
	}
	if len(updating) > 0 {
		detail = append(detail, "the update of "+strings.Join(updating, ", ")+" is not yet rolled out: the state store and a "+
			"running kubelet differ")
	}
	if why != nil {
		detail = append(detail, fmt.Sprintf("the kubelets' shutdownGracePeriod is unknown for %s: %v",
			strings.Join(unknown, ", "), why))
	}
	f := change.Finding{Level: change.OK, Name: "shutdown", Detail: strings.Join(detail, "; ")}
	switch {
	case len(short) > 0:
		f.Level = change.Fail
		f.Detail = fmt.Sprintf("ShutdownGrace=%s is too long for %s: pods would be killed before it ends; %s", setting,
			strings.Join(short, ", "), f.Detail)
		f.Advice = fmt.Sprintf("kops-spot install --set ShutdownGrace=%s, or change spec.kubelet.shutdownGracePeriod", shortest)
	case inhibited:
		f.Level = change.Warn
		f.Advice = fmt.Sprintf("set spec.kubelet.shutdownGracePeriod to at most %s: otherwise, pods get no SIGTERM then",
			inhibitDelay)
	case len(updating) > 0:
		f.Level, f.Advice = change.Warn, "kops rolling-update cluster rolls it out"
	case why != nil && grace > 0:
		f.Level = change.Warn
		f.Advice = "kubectl get --raw /api/v1/nodes/NODE/proxy/configz shows whether ShutdownGrace=" + setting + " is right"
	case why != nil:
	case shortest == 0 && amazonVPC:
		f.Detail += "; with amazonvpc, kOps turns graceful node shutdown off, so pods get no SIGTERM then"
	case shortest == 0:
		f.Advice = "with spec.kubelet.shutdownGracePeriod: 30s and shutdownGracePeriodCriticalPods: 10s, pods that still run " +
			"then would get SIGTERM and 20 s"
	case shortest > grace:
		f.Advice = fmt.Sprintf("with ShutdownGrace=%s, a pod whose budget refuses its eviction keeps running until the "+
			"deadline, and its kubelet then gives it SIGTERM and %[1]s\nnot verified on AWS: that the shutdown begins at the "+
			"deadline and not earlier", shortest)
	}
	return f
}
