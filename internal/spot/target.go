package spot

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Tags and labels that kOps and others put on instances, groups and nodes, as far as a decision depends on them.
const (
	TagCluster        = "KubernetesCluster"                    // kOps: on every instance and group of a cluster
	TagDetached       = "kops.k8s.io/detached-from-asg"        // kOps: its tools find a detached instance by it
	TagInterruptedAt  = "cast:interrupted-at"                  // ours: tells our detached instances from those kOps surged
	tagNTH            = "aws-node-termination-handler/managed" // kOps: on what aws-node-termination-handler sees to
	tagRolePrefix     = "k8s.io/role/"                         // kOps: on every instance, value "1"
	labelRolePrefix   = "node-role.kubernetes.io/"             // kOps: on every node
	karpenterKey      = "karpenter.sh/nodepool"                // Karpenter: label of its nodes and tag of its instances
	taintCADeleting   = "ToBeDeletedByClusterAutoscaler"       // cluster-autoscaler: it is removing the node and lowers the group
	taintKarpenter    = "karpenter.sh/disrupted"               // Karpenter: it is removing the node
	LabelAutoscalerID = "provisioner.cast.ai/node-id"          // CAST AI: its autoscaler made the node, and calls it so

	// CAST AI: what its autoscaler is told instead of the node's providerID.
	annotationProvider = "provisioner.cast.ai/override-provider-id"
)

// Target is all that is known of what an interruption hits. A nil part is unknown or does not exist; which, and why, is
// in the error beside it.
type Target struct {
	Node       *Node
	Instance   *Instance
	Membership *Membership

	Hook *Hook // LifecycleTerminate: the hook that holds the instance

	NodeErr       error
	InstanceErr   error
	MembershipErr error
}

// Node is a Kubernetes node, as far as the handler needs it.
type Node struct {
	Name            string
	UID             string
	Version         string // resourceVersion: a change is only taken if nobody came in between
	ProviderID      string // aws:///<zone>/<instance id>
	InternalIP      string
	Labels          map[string]string
	Annotations     map[string]string
	Taints          []Taint
	Unschedulable   bool
	CordonedBy      string   // whose write made it unschedulable, by the API server's field managers; empty if not known
	NodeClaim       string   // the Karpenter NodeClaim that owns the node, or none
	AttachedVolumes []string // volumes that the attach-detach controller has attached to it
}

// Taint is one taint of a node. The list on a node is atomic, so all of a taint is kept.
type Taint struct {
	Key, Value, Effect string
	TimeAdded          time.Time
}

// IsInstance reports whether the node is the given instance: kOps, the kubelet and the cloud controller all write the
// instance id behind the last slash of spec.providerID.
func (n Node) IsInstance(id string) bool {
	return n.ProviderID != "" && n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:] == id
}

func (n Node) hasTaint(key string) bool {
	return slices.ContainsFunc(n.Taints, func(t Taint) bool { return t.Key == key })
}

// clone returns a copy that shares no map or slice with n.
func (n Node) clone() Node {
	n.Labels, n.Annotations, n.Taints = maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	return n
}

// Instance is an EC2 instance.
type Instance struct {
	ID             string
	State          string // pending, running, stopping, stopped, shutting-down, terminated
	PrivateDNSName string // empty once the instance is terminated
	PrivateIP      string
	Spot           bool
	Hibernates     bool // it was launched so that it can hibernate: stopped may mean asleep, with its pods in memory
	Tags           map[string]string
}

// NodeNames are the names that kOps may have given the instance's node, likeliest first: the instance id (kOps 1.29 and
// later, and before with an external cloud controller), EC2's private DNS name, and a name made of the private IP
// address and the region (kOps 1.37 with useIPBasedNodeNames, which does not ask EC2 for it).
func (i Instance) NodeNames(region string) []string {
	names := []string{i.ID}
	if i.PrivateDNSName != "" {
		names = append(names, i.PrivateDNSName)
	}
	if i.PrivateIP != "" {
		domain := region + ".compute.internal"
		if region == "us-east-1" {
			domain = "ec2.internal"
		}
		if name := "ip-" + strings.ReplaceAll(i.PrivateIP, ".", "-") + "." + domain; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Membership is an instance's place in an Auto Scaling group, and the group.
type Membership struct {
	Group          string
	LifecycleState string // InService, Standby, Pending…, Terminating…, Detaching…
	GroupTags      map[string]string
	Suspended      []string // processes that are suspended in the group
	TerminateHooks []string // names of the group's lifecycle hooks for EC2_INSTANCE_TERMINATING
	HooksErr       error    // why the hooks are not known; a detach does not depend on them
}

// Pod is a pod on the interrupted node.
type Pod struct {
	Namespace, Name, UID string
	Version              string // resourceVersion
	GracePeriod          time.Duration
	Terminating          bool              // it has a deletionTimestamp
	DeletionTimestamp    time.Time         // the deletionTimestamp: the kubelet kills what is left of it then
	Finished             bool              // phase Succeeded or Failed
	Mirror               bool              // a static pod's picture: only its kubelet can end it
	Owner                Owner             // the controlling owner, or none
	ToleratesCordon      bool              // neither the cordon nor the draining taint keeps it off the node
	Volumes              bool              // it has persistent volumes: they must be detached before the next pod starts
	EmptyDir             bool              // it has an emptyDir on the node's disk: what is in it ends with the pod
	Critical             bool              // priority of system-cluster-critical or above
	Finalizers           []string          // what keeps its object after its end
	DisruptedBy          string            // reason of its condition DisruptionTarget: who began to end it, in Kubernetes' words
	Annotations          map[string]string // those of ours: see AnnotationForce and AnnotationDrain
}

// ID is the pod's namespace/name.
func (p Pod) ID() string { return p.Namespace + "/" + p.Name }

// Owner is a pod's controlling owner.
type Owner struct{ Kind, Name, UID string }
