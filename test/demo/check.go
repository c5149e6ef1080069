package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/demo/story"
	"github.com/castai/kops-spot/test/testenv"
)

// check asks the API server, the kubelets and the Auto Scaling group themselves: the function's account proves nothing.
// Its error joins what is not as it should be.
func (w *world) check(ctx context.Context, told spot.Outcome, victim *machine) error {
	var errs []error
	verify := func(failure, format string, args ...any) {
		mark := w.out.Paint(story.Green, "ok")
		if failure != "" {
			mark = w.out.Paint(story.Red, "NO")
			errs = append(errs, errors.New(failure))
		}
		w.out.Line("  %s  %s", mark, fmt.Sprintf(format, args...))
		if failure != "" {
			w.out.Line("      %s", failure)
		}
	}

	list, err := w.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + victim.node})
	if err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", victim.node, err)
	}
	staying, failure := 0, ""
	for i := range list.Items {
		if stays(&list.Items[i]) {
			staying++
			continue
		}
		failure = fmt.Sprintf("the node was not drained: %s is still there", list.Items[i].Name)
	}
	if failure == "" && told.Result != spot.Drained {
		failure = "the node was not emptied: the function says " + string(told.Result)
	}
	verify(failure, "the node is empty, but for %d pods of DaemonSets and of its kubelet", staying)

	if missing := w.missing(victim); len(missing) > 0 {
		failure = "not Ready: " + strings.Join(missing, ", ")
	} else {
		failure = ""
	}
	verify(failure, "every workload has all its pods Ready, on other nodes")

	killed, ended, err := w.containers(victim)
	if err != nil {
		return err
	}
	left := w.pods.left()
	switch {
	case len(killed) > 0:
		failure = "killed: " + strings.Join(killed, ", ")
	case ended < left:
		failure = fmt.Sprintf("%d of them did not", left-ended)
	default:
		failure = ""
	}
	verify(failure, "all %d pods that left had SIGTERM and ended by themselves, none by SIGKILL", left)

	if told.Event.Kind == spot.SpotTerminate {
		w.checkGroup(victim, verify)
	}
	if err := w.checkRequests(verify); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// containers says which pods of a node were killed, and how many ended by themselves.
func (w *world) containers(victim *machine) (killed []string, ended int, err error) {
	log, err := w.cp.KubeletLog()
	if err != nil {
		return nil, 0, err
	}
	for _, r := range log {
		switch {
		case r.Node != victim.node:
		case r.Event == testenv.PodSigKill:
			killed = append(killed, r.Pod)
		case r.Event == testenv.PodExited:
			ended++
		}
	}
	return killed, ended, nil
}

// checkGroup wants the group whole again, without the machine that goes.
func (w *world) checkGroup(victim *machine, verify func(failure, format string, args ...any)) {
	g := w.aws.Group(victim.group + "." + story.Cluster)
	serving, failure := 0, ""
	for _, m := range g.Members {
		if m.ID == victim.id {
			failure = "the instance is still " + m.State + " in its group"
		}
		if m.State == "InService" {
			serving++
		}
	}
	if failure == "" && serving < g.Desired {
		failure = fmt.Sprintf("%d of %d instances serve", serving, g.Desired)
	}
	verify(failure, "%s is whole again: %d of %d instances serve", victim.group, serving, g.Desired)
}

// checkRequests wants the shipped permissions to have been enough, and says how little was asked.
func (w *world) checkRequests(verify func(failure, format string, args ...any)) error {
	log, err := w.cp.AuditLog()
	if err != nil {
		return err
	}
	requests, evictions, refused, failure := 0, 0, 0, ""
	for _, r := range log {
		if r.User != "system:serviceaccount:"+system+":kops-spot" {
			continue
		}
		requests++
		if r.Code == http.StatusForbidden {
			failure = fmt.Sprintf("forbidden: %s %s", r.Verb, r.URI)
		}
		if r.Subresource == "eviction" {
			evictions++
			if r.Code == http.StatusTooManyRequests {
				refused++
			}
		}
	}
	verify(failure, "the function made %d requests to the API server, all permitted: %d evictions, of which budgets refused %d, and %d others",
		requests, evictions, refused, requests-evictions)
	return nil
}
