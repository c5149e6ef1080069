package testenv

import (
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// AdminUser is the user name of AdminConfig in the audit log.
const AdminUser = protocol.AdminUser

// AuditRecord is one request to the API server. The record of a watch is complete only after the watch has ended.
type AuditRecord struct {
	ID          string
	User        string // system:serviceaccount:<namespace>:<name> for a ServiceAccount
	UserAgent   string
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection; an eviction is a create
	Group       string // API group, empty for core
	Resource    string // empty for a request that is not for a resource, such as /version
	Subresource string // eviction, status, token, …
	Namespace   string
	Name        string // empty for a list, or a create whose URL has no name
	URI         string // with the query
	Code        int    // HTTP status; 0 while a request has none
	Forbidden   bool   // denied by RBAC; an admission webhook can also cause a 403
	Stage       string // ResponseStarted, ResponseComplete or Panic
	Received    time.Time
	Answered    time.Time // when Stage was reached
}

// auditEvent is the required part of an audit.k8s.io/v1 Event.
type auditEvent struct {
	AuditID    string `json:"auditID"`
	Stage      string `json:"stage"`
	RequestURI string `json:"requestURI"`
	Verb       string `json:"verb"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	UserAgent string `json:"userAgent"`
	ObjectRef struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Annotations struct {
		Decision string `json:"authorization.k8s.io/decision"`
	} `json:"annotations"`
	RequestReceivedTimestamp time.Time `json:"requestReceivedTimestamp"`
	StageTimestamp           time.Time `json:"stageTimestamp"`
}

func (e auditEvent) record() AuditRecord {
	return AuditRecord{
		ID:          e.AuditID,
		User:        e.User.Username,
		UserAgent:   e.UserAgent,
		Verb:        e.Verb,
		Group:       e.ObjectRef.APIGroup,
		Resource:    e.ObjectRef.Resource,
		Subresource: e.ObjectRef.Subresource,
		Namespace:   e.ObjectRef.Namespace,
		Name:        e.ObjectRef.Name,
		URI:         e.RequestURI,
		Code:        e.ResponseStatus.Code,
		Forbidden:   e.Annotations.Decision == "forbid",
		Stage:       e.Stage,
		Received:    e.RequestReceivedTimestamp,
		Answered:    e.StageTimestamp,
	}
}

// AuditLog returns all requests so far except the control plane's own, in the order in which they were received. A
// request appears shortly after its response: wait for the last one before counting.
func (cp *ControlPlane) AuditLog() ([]AuditRecord, error) {
	events, err := readLines[auditEvent](cp.dir, protocol.AuditLogFile)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	var records []AuditRecord
	place := map[string]int{}
	for _, e := range events {
		i, known := place[e.AuditID]
		if !known {
			i = len(records)
			place[e.AuditID] = i
			records = append(records, AuditRecord{})
		}
		records[i] = e.record()
	}
	slices.SortStableFunc(records, func(a, b AuditRecord) int { return a.Received.Compare(b.Received) })
	return records, nil
}
