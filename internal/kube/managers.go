package kube

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// manager is what the API server calls our writes to a node, whatever the client's user agent is.
const manager = reporter

// cordonedBy is whose write made the node unschedulable, as far as the API server has noted it: it keeps for each program
// that writes to an object which fields are that one's. Where several have written the same, it is the one that wrote last.
func cordonedBy(n *corev1.Node) (by string) {
	if !n.Spec.Unschedulable {
		return ""
	}
	var last time.Time
	for _, entry := range n.ManagedFields {
		var fields struct {
			Spec struct {
				Unschedulable *struct{} `json:"f:unschedulable"`
			} `json:"f:spec"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil || fields.Spec.Unschedulable == nil {
			continue // it owns other fields, or none, or says so in a form that is not known
		}
		var at time.Time
		if entry.Time != nil {
			at = entry.Time.Time
		}
		if by == "" || at.After(last) {
			by, last = entry.Manager, at
		}
	}
	return by
}
