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

// check verifies the outcome against the API server, the kubelets and the Auto Scaling group. It joins all failures.
func (w *world) check(ctx context.Context, outcome spot.Outcome, victim *machine) error {
	var errs []error
	verify := func(failure, format string, args ...any) {
		status := w.out.Paint(story.Green, "ok  ")
		if failure != "" {
			status = w.out.Paint(story.Red, "FAIL")
			errs = append(errs, errors.New(failure))
		}
		w.out.Line("  %s  %s", status, fmt.Sprintf(format, args...))
		if failure != "" {
			w.out.Line("        %s", failure)
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
		failure = fmt.Sprintf("node not drained: pod %s is still running", list.Items[i].Name)
	}
	if failure == "" && outcome.Result != spot.Drained {
		failure = "the function reported the result " + string(outcome.Result)
	}
	verify(failure, "the node is empty except for %d DaemonSet and static pods", staying)

	if missing := w.missing(victim); len(missing) > 0 {
		failure = "not Ready: " + strings.Join(missing, ", ")
	} else {
		failure = ""
	}
	verify(failure, "all pods of every workload are Ready on other nodes")

	killed, exited, err := w.containers(victim)
	if err != nil {
		return err
	}
	terminated := w.pods.terminated()
	switch {
	case len(killed) > 0:
		failure = "killed: " + strings.Join(killed, ", ")
	case exited < terminated:
		failure = fmt.Sprintf("%d of them did not", terminated-exited)
	default:
		failure = ""
	}
	verify(failure, "all %d terminated pods exited after SIGTERM, none was killed", terminated)

	if outcome.Event.Kind == spot.SpotTerminate {
		w.checkGroup(victim, verify)
	}
	if err := w.checkRequests(verify); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// containers returns which pods of a node were killed, and how many exited by themselves.
func (w *world) containers(victim *machine) (killed []string, exited int, err error) {
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
			exited++
		}
	}
	return killed, exited, nil
}

// checkGroup verifies that the group has its desired capacity again, without the interrupted instance.
func (w *world) checkGroup(victim *machine, verify func(failure, format string, args ...any)) {
	g := w.aws.Group(victim.group + "." + story.Cluster)
	inService, failure := 0, ""
	for _, m := range g.Members {
		if m.ID == victim.id {
			failure = "the interrupted instance is still in the group: " + m.State
		}
		if m.State == "InService" {
			inService++
		}
	}
	if failure == "" && inService < g.Desired {
		failure = fmt.Sprintf("%d of %d instances are InService", inService, g.Desired)
	}
	verify(failure, "%s is back at its desired capacity: %d of %d instances InService", victim.group, inService, g.Desired)
}

// checkRequests verifies that the shipped permissions sufficed, and counts the requests.
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
	verify(failure, "all %d API requests of the function were allowed by RBAC: %d evictions (%d refused by budgets), %d others",
		requests, evictions, refused, requests-evictions)
	return nil
}
