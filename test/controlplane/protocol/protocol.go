// Package protocol is the interface of the test control plane: the line that it prints when it is ready, the
// annotations that its fake kubelet obeys, and the kubelet's log. It has no dependencies, so tests can use it without
// linking Kubernetes' servers.
package protocol

import (
	"fmt"
	"strings"
	"time"
)

// Files in the directory of the control plane.
const (
	KubeconfigFile = "kubeconfig"    // the administrator's; written last, when everything works
	KubeletLogFile = "kubelet.jsonl" // KubeletRecords, one to a line
	AuditLogFile   = "audit.jsonl"   // audit.k8s.io/v1 Events except for the control plane's own, one to a line
	ServerLogFile  = "server.log"    // logs of etcd, the API server, the controllers and the scheduler
)

// AdminUser is the user of the administrator's kubeconfig, as the audit log names it.
const AdminUser = "kubernetes-admin"

// Ready is the line of JSON on standard output, printed when tests can begin.
type Ready struct {
	Seconds    float64 `json:"seconds"` // since the program's start
	Server     string  `json:"server"`  // URL of the API server
	Kubeconfig string  `json:"kubeconfig"`
}

// Annotations that the fake kubelet and the cloud controller obey.
const (
	// PowerAnnotation on a node: "off" stops its heartbeats and all containers at once, like a powered-off instance.
	// "shutdown 20s 10s" shuts the operating system down while a kubelet with these windows, for ordinary and for
	// critical pods, delays it; then power is off. Removing it boots the machine again.
	PowerAnnotation = "fake-kubelet/power"
	// HeartbeatAnnotation on a node: "off" reports the node Ready only once, so that thousands of nodes cost nothing.
	// Set a long node grace, or the node lifecycle controller considers them lost.
	HeartbeatAnnotation = "fake-kubelet/heartbeat"
	// WaitingAnnotation on a node: the containers of its new pods do not run, and wait for this reason: a kubelet's, such
	// as ImagePullBackOff. For CrashLoopBackOff, they have exited before.
	WaitingAnnotation = "fake-kubelet/waiting"
	// CloudAnnotation on a node: the URL of the EC2 endpoint that knows its instance. The cloud controller deletes the
	// node when it is NotReady and its instance is terminated. Without it, the node stays.
	CloudAnnotation = "fake-cloud/endpoint"
	// ReadyAfterAnnotation on a pod: the time.Duration from the container's start until it is Ready.
	ReadyAfterAnnotation = "fake-kubelet/ready-after"
	// ExitAfterAnnotation on a pod: the time.Duration until its container exits after SIGTERM. If it is longer than the
	// grace period, the container gets SIGKILL.
	ExitAfterAnnotation = "fake-kubelet/exit-after"
)

// Defaults of the pod annotations.
const (
	DefaultReadyAfter = 200 * time.Millisecond
	DefaultExitAfter  = 300 * time.Millisecond
)

// Off is the value that switches PowerAnnotation or HeartbeatAnnotation off.
const Off = "off"

// Shutdown returns the value of PowerAnnotation for a shutdown with these windows.
func Shutdown(ordinary, critical time.Duration) string {
	return fmt.Sprintf("shutdown %s %s", ordinary, critical)
}

// ParseShutdown returns the windows in a value of Shutdown.
func ParseShutdown(value string) (ordinary, critical time.Duration, ok bool) {
	parts := strings.Fields(value)
	if len(parts) != 3 || parts[0] != "shutdown" {
		return 0, 0, false
	}
	ordinary, errOrdinary := time.ParseDuration(parts[1])
	critical, errCritical := time.ParseDuration(parts[2])
	return ordinary, critical, errOrdinary == nil && errCritical == nil
}

// KubeletEvent is an event of a pod's containers, or of a machine.
type KubeletEvent string

const (
	Started        KubeletEvent = "started" // volumes attached, containers running
	BecameReady    KubeletEvent = "ready"
	SigTerm        KubeletEvent = "sigterm"         // the first deletion request arrived, or the machine shuts down
	GraceShortened KubeletEvent = "grace-shortened" // a later one, or the shutdown, allows less time
	Exited         KubeletEvent = "exited"          // the containers exited
	SigKill        KubeletEvent = "sigkill"         // their time was up, or the pod was force-deleted
	Removed        KubeletEvent = "removed"         // the kubelet deleted the finished pod from the API server
	PowerCut       KubeletEvent = "power-cut"       // of a machine, without a pod
)

// KubeletRecord is one line of the fake kubelet's record.
type KubeletRecord struct {
	Time      time.Time    `json:"time"`
	Node      string       `json:"node"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid"`
	Event     KubeletEvent `json:"event"`
	// Grace is the grace period in seconds from SigTerm or GraceShortened on.
	Grace int64 `json:"grace"`
}
