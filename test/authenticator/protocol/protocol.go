// Package protocol is the interface of the authenticator's program.
package protocol

// Backend modes: the values of kOps' spec.authentication.aws.backendMode.
const (
	MountedFile  = "MountedFile"  // its configuration, read once
	EKSConfigMap = "EKSConfigMap" // the ConfigMap kube-system/aws-auth, watched
	CRD          = "CRD"          // objects of kind IAMIdentityMapping, watched
)

// Config is the content of the file in -config.
type Config struct {
	Dir        string // for its keys and the webhook's kubeconfig; existing ones are reused
	Port       int    // on 127.0.0.1; 0 picks a free one
	ClusterID  string // must match the tokens
	Modes      []string
	Mappings   []Mapping // for MountedFile
	Kubeconfig string    // for the other modes
	STSAddress string    // host:port of STS, whatever its host name
	STSRoots   string    // PEM: trusted issuers of STS's certificate
}

// Mapping maps an IAM role or user to a user of the cluster.
type Mapping struct {
	ARN      string // of the role, not of a session; or of the user
	Username string // may contain {{SessionName}}, {{AccountID}} or {{AccessKeyID}}
	Groups   []string
}

// Ready is the line of JSON on standard output, printed when tokens are accepted. Watched mappings may be loaded a
// moment later.
type Ready struct {
	Port       int    `json:"port"`
	Kubeconfig string `json:"kubeconfig"` // for kube-apiserver's --authentication-token-webhook-config-file
}
