// Package protocol is what the authenticator's program and whoever starts it say to each other.
package protocol

// Where the program takes mappings from: the values of kOps' spec.authentication.aws.backendMode.
const (
	MountedFile  = "MountedFile"  // its configuration, read once
	EKSConfigMap = "EKSConfigMap" // the ConfigMap kube-system/aws-auth, watched
	CRD          = "CRD"          // objects of kind IAMIdentityMapping, watched
)

// Config is how an authenticator is run: the content of the file that -config names.
type Config struct {
	Dir        string // for its keys and the webhook's kubeconfig; those that are there are used again
	Port       int    // on 127.0.0.1; 0 picks a free one
	ClusterID  string // that tokens must be made for
	Modes      []string
	Mappings   []Mapping // of MountedFile
	Kubeconfig string    // of the cluster that the other modes read
	STSAddress string    // host:port where STS is asked, whatever its name
	STSRoots   string    // PEM of whom to believe that it is STS
}

// Mapping says who an IAM role or user is in the cluster.
type Mapping struct {
	ARN      string // of the role, not of a session; or of the user
	Username string // may contain {{SessionName}}, {{AccountID}} or {{AccessKeyID}}
	Groups   []string
}

// Ready is the one line of JSON on standard output, printed when tokens are taken. Mappings that are watched may come a
// moment later.
type Ready struct {
	Port       int    `json:"port"`
	Kubeconfig string `json:"kubeconfig"` // for kube-apiserver's --authentication-token-webhook-config-file
}
