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
	// A token is a prefix and the URL of a presigned GetCallerIdentity request. A signed header names the cluster, so
	// that no other cluster accepts the token.
	iamTokenPrefix  = "k8s-aws-v1."
	iamClusterIDKey = "x-k8s-aws-id"

	// iamTokenLimit is the authenticator's limit in bytes.
	iamTokenLimit = 4096

	// The authenticator accepts a token for 15 minutes, and no greater X-Amz-Expires.
	iamTokenExpires = 15 * time.Minute
	iamTokenRenew   = 10 * time.Minute

	// iamRenewRejected is the age at which to replace a rejected token: the credentials may have changed.
	iamRenewRejected = time.Minute

	// whoAmILimit limits the call to AWS that explains a 401. A VPC may have no route to STS.
	whoAmILimit = 2 * time.Second
)

// IAM is an AWS identity for aws-iam-authenticator.
type IAM struct {
	ClusterID   string // clusterID in the authenticator's configuration
	Region      string // of STS; must be in the authenticator's partition
	Credentials aws.CredentialsProvider

	// WhoAmI returns the ARN of the credentials. It is called only to explain a 401.
	WhoAmI func(context.Context) (arn string, err error)
}

// iamToken creates tokens for an IAM identity.
type iamToken struct {
	IAM

	mu     sync.Mutex
	value  string
	minted time.Time

	explaining  sync.Mutex // never held together with mu: requests must not wait for AWS
	explained   string
	explainedAt time.Time
}

func (t *iamToken) token(ctx context.Context, rejected string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := time.Since(t.minted)
	if t.value != "" && age < iamTokenRenew && (t.value != rejected || age < iamRenewRejected) {
		return t.value, nil
	}
	value, err := t.mint(ctx)
	if err != nil {
		return "", fmt.Errorf("creating a token for aws-iam-authenticator: %w", err)
	}
	t.value, t.minted = value, wallClock()
	return value, nil
}

// mint presigns the URL that the authenticator sends to STS. It always uses the region's public endpoint, even if the
// environment sets another one for our own calls: the authenticator accepts no other host.
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
		return "", spot.Permanent(fmt.Errorf("it has %d bytes, more than the authenticator's limit of %d: "+
			"the credentials' session token is too long; "+
			"use a role without session tags", len(token), iamTokenLimit))
	}
	return token, nil
}

// explain finds the cause of a 401: an invalid key, an unmapped role, a wrong cluster ID or a wrong clock. It calls AWS
// at most once a minute, for one request: others get a shorter explanation.
func (t *iamToken) explain(ctx context.Context, _ string, skew time.Duration) string {
	if why := clockSkewOr(skew, ""); why != "" {
		return why
	}
	sent := fmt.Sprintf("it was sent with cluster ID %q", t.ClusterID)
	if !t.explaining.TryLock() {
		return sent
	}
	defer t.explaining.Unlock()
	if t.explained != "" && time.Since(t.explainedAt) < iamRenewRejected {
		return t.explained
	}
	ctx, cancel := context.WithTimeout(ctx, whoAmILimit)
	defer cancel()
	arn, err := t.WhoAmI(ctx)
	switch {
	case errors.Is(err, spot.ErrPermanent):
		t.explained = fmt.Sprintf("AWS rejects it, too: %v", err)
	case err != nil:
		t.explained = fmt.Sprintf("%s; reading its identity from AWS failed: %v", sent, err)
	default:
		t.explained = fmt.Sprintf("it belongs to %s and was sent with cluster ID %q: the cluster does not know one of the two; "+
			"map %s to the group cast:spot-handler in the cluster's authenticator, or set KOPS_SPOT_LOGIN=iam:<the authenticator's cluster ID>",
			arn, t.ClusterID, mappable(arn))
	}
	t.explainedAt = wallClock()
	return t.explained
}

// mappable returns the ARN to map in the authenticator: for a role session, the role's ARN without its path.
func mappable(arn string) string {
	head, session, ok := strings.Cut(arn, ":assumed-role/")
	if !ok {
		return arn
	}
	role, _, _ := strings.Cut(session, "/")
	return strings.Replace(head, ":sts:", ":iam:", 1) + ":role/" + role
}
