// Package protocol is what the test control plane and those who use it say to one another: the line it prints when it
// is ready, the annotations its fake kubelet obeys, and the record that kubelet keeps. It depends on nothing, so that
// a test can speak it without linking Kubernetes' servers.
package protocol

import "time"

// Names of the files the control plane leaves in its directory.
const (
	KubeconfigFile = "kubeconfig"    // the administrator's, written last: once it is there, everything works
	KubeletLogFile = "kubelet.jsonl" // KubeletRecords, one to a line
	AuditLogFile   = "audit.jsonl"   // audit.k8s.io/v1 Events of everyone but the control plane itself, one to a line
	ServerLogFile  = "server.log"    // what etcd, the API server, the controllers and the scheduler have to say
)

// AdminUser is the user of the administrator's kubeconfig, as the audit log names it.
const AdminUser = "kubernetes-admin"

// Ready is the one line of JSON on standard output, printed when tests can begin.
type Ready struct {
	Seconds    float64 `json:"seconds"` // from the program's start
	Server     string  `json:"server"`  // URL of the API server
	Kubeconfig string  `json:"kubeconfig"`
}

// Annotations the fake kubelet obeys.
const (
	// PowerAnnotation on a node: "off" stops its heartbeats and all its containers at once and without a word, as a
	// powered-off instance does. Taking it away boots the machine again.
	PowerAnnotation = "fake-kubelet/power"
	// HeartbeatAnnotation on a node: "off" reports the node Ready once and never again, so that thousands of nodes
	// cost nothing. The node lifecycle controller takes them for dead after the node grace: set that long.
	HeartbeatAnnotation = "fake-kubelet/heartbeat"
	// ReadyAfterAnnotation on a pod: the time.Duration from its container's start until it is Ready.
	ReadyAfterAnnotation = "fake-kubelet/ready-after"
	// ExitAfterAnnotation on a pod: the time.Duration its container takes to exit after SIGTERM. One longer than
	// the grace period ends in SIGKILL.
	ExitAfterAnnotation = "fake-kubelet/exit-after"
)

// What a pod's annotations say when they say nothing.
const (
	DefaultReadyAfter = 200 * time.Millisecond
	DefaultExitAfter  = 300 * time.Millisecond
)

// Off is the value that switches PowerAnnotation or HeartbeatAnnotation off.
const Off = "off"

// KubeletEvent is something the fake kubelet did to a pod's containers, or saw them do.
type KubeletEvent string

const (
	Started        KubeletEvent = "started" // its volumes are there, its containers run
	BecameReady    KubeletEvent = "ready"
	SigTerm        KubeletEvent = "sigterm"         // the first deletion request arrived
	GraceShortened KubeletEvent = "grace-shortened" // a later one allows less time
	Exited         KubeletEvent = "exited"          // the containers ended by themselves
	SigKill        KubeletEvent = "sigkill"         // their time was up, or the pod was deleted from under them
	Removed        KubeletEvent = "removed"         // the kubelet deleted the finished pod from the API server
)

// KubeletRecord is one line of the fake kubelet's record.
type KubeletRecord struct {
	Time      time.Time    `json:"time"`
	Node      string       `json:"node"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid"`
	Event     KubeletEvent `json:"event"`
	// Grace is how many seconds the pod was given to exit: of SigTerm, GraceShortened and what follows them.
	Grace int64 `json:"grace"`
}
