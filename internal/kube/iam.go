package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// The form of aws-iam-authenticator's tokens: a prefix, and the URL of a signed GetCallerIdentity, in which a header
	// names the cluster, so that a token for one cluster is none for another.
	iamTokenPrefix  = "k8s-aws-v1."
	iamClusterIDKey = "x-k8s-aws-id"

	// iamTokenLimit is the longest token that the authenticator reads, in bytes.
	iamTokenLimit = 4096

	// The authenticator accepts a token for fifteen minutes from its signing, and demands an X-Amz-Expires of no more
	// than that.
	iamTokenExpires = 15 * time.Minute
	iamTokenRenew   = 10 * time.Minute

	// iamRemint is the age at which a token that was not accepted is worth making anew: the credentials may be others.
	iamRemint = time.Minute
)

// IAM is an AWS identity that logs in to a cluster with aws-iam-authenticator.
type IAM struct {
	ClusterID   string // what the authenticator's configuration calls the cluster
	Region      string // whose STS is asked: the authenticator refuses other partitions'
	Credentials aws.CredentialsProvider

	// WhoAmI asks AWS for the ARN of the credentials. It is only called to explain a log-in that was refused.
	WhoAmI func(context.Context) (arn string, err error)
}

// iamToken mints the tokens of an IAM identity.
type iamToken struct {
	IAM

	mu     sync.Mutex
	value  string
	minted time.Time

	explained  string
	certain    bool
	explaining time.Time
}

func (t *iamToken) token(ctx context.Context, rejected string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := time.Since(t.minted)
	if t.value != "" && age < iamTokenRenew && (t.value != rejected || age < iamRemint) {
		return t.value, nil
	}
	value, err := t.mint(ctx)
	if err != nil {
		return "", fmt.Errorf("making a token for aws-iam-authenticator: %w", err)
	}
	t.value, t.minted = value, wallClock()
	return value, nil
}

// mint signs the URL with which the API server may ask STS who we are. Nothing is sent. The endpoint is the region's own,
// whatever endpoint the environment sets for our own calls: the authenticator refuses any other host.
func (t *iamToken) mint(ctx context.Context) (string, error) {
	client := sts.New(sts.Options{Region: t.Region, Credentials: t.Credentials})
	signed, err := sts.NewPresignClient(client).PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, func(o *sts.PresignOptions) {
		o.ClientOptions = append(o.ClientOptions, sts.WithAPIOptions(
			smithyhttp.SetHeaderValue(iamClusterIDKey, t.ClusterID),
			smithyhttp.SetHeaderValue("X-Amz-Expires", fmt.Sprint(int(iamTokenExpires/time.Second)))))
	})
	if err != nil {
		return "", err
	}
	token := iamTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(signed.URL))
	if len(token) > iamTokenLimit {
		return "", spot.Permanent(fmt.Errorf("it has %d bytes and the authenticator reads %d: the session token of the credentials is too long; "+
			"run as a role without session tags", len(token), iamTokenLimit))
	}
	return token, nil
}

// explain finds out what the API server does not say: it answers a wrong key, a role that is not mapped, a wrong cluster
// id and a wrong clock alike. AWS is asked once in a while only: its answer does not change from one second to the next.
func (t *iamToken) explain(ctx context.Context, _ string, skew time.Duration) (why string, certain bool) {
	if why, certain = clockOr(skew, ""); certain {
		return why, certain
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.explained != "" && time.Since(t.explaining) < iamRemint {
		return t.explained, t.certain
	}
	arn, err := t.WhoAmI(ctx)
	switch {
	case errors.Is(err, spot.ErrPermanent):
		t.explained, t.certain = fmt.Sprintf("AWS does not accept it either: %v", err), true
	case err != nil:
		return fmt.Sprintf("the cluster id %q was sent with it; AWS could not be asked whose it is: %v", t.ClusterID, err), false
	default:
		t.certain = false
		t.explained = fmt.Sprintf("AWS says that it is of %s, and the cluster id %q was sent with it: the cluster does not know one of the two; "+
			"map %s to the group cast:spot-handler in the cluster's authenticator, or set KOPS_SPOT_LOGIN=iam:<the authenticator's cluster id>",
			arn, t.ClusterID, mappable(arn))
	}
	t.explaining = wallClock()
	return t.explained, t.certain
}

// mappable is the ARN by which an authenticator knows the identity: of a role's session, that of the role without its
// path.
func mappable(arn string) string {
	head, session, ok := strings.Cut(arn, ":assumed-role/")
	if !ok {
		return arn
	}
	role, _, _ := strings.Cut(session, "/")
	return strings.Replace(head, ":sts:", ":iam:", 1) + ":role/" + role
}
