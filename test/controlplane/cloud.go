package controlplane

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/controllers/nodelifecycle"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// addCloud adds the cloud provider's node lifecycle controller, which deletes nodes without an instance. Period and
// workers are cloud-controller-manager's defaults.
func (c *controllers) addCloud(context.Context) error {
	lifecycle, err := nodelifecycle.NewCloudNodeLifecycleController(c.shared.Core().V1().Nodes(), c.client, cloud{},
		5*time.Second, 1)
	if err != nil {
		return err
	}
	metrics := controllersmetrics.NewControllerManagerMetrics("cloud-controller-manager")
	c.run(func(ctx context.Context) { lifecycle.Run(ctx, metrics) })
	return nil
}

// cloud is the cloud provider of nodes with CloudAnnotation. It asks EC2 what AWS' provider asks it, and draws the same
// conclusions (kubernetes/cloud-provider-aws): an instance exists until it is terminated, also while it shuts down.
// Other nodes always have an instance. The controller calls no other methods.
type cloud struct{ cloudprovider.Interface }

func (cloud) Instances() (cloudprovider.Instances, bool)     { return nil, false }
func (cloud) InstancesV2() (cloudprovider.InstancesV2, bool) { return instances{}, true }

type instances struct{ cloudprovider.InstancesV2 }

func (instances) InstanceExists(ctx context.Context, node *corev1.Node) (bool, error) {
	state, err := instanceState(ctx, node)
	return state != "" && state != types.InstanceStateNameTerminated, err
}

func (instances) InstanceShutdown(ctx context.Context, node *corev1.Node) (bool, error) {
	state, err := instanceState(ctx, node)
	return state == types.InstanceStateNameStopped, err
}

// instanceState returns the state of the node's instance: empty if EC2 does not know it, and running without an
// endpoint.
func instanceState(ctx context.Context, node *corev1.Node) (types.InstanceStateName, error) {
	endpoint := node.Annotations[protocol.CloudAnnotation]
	if endpoint == "" {
		return types.InstanceStateNameRunning, nil
	}
	// No retries: the endpoint of a test that is over would delay the nodes of the others.
	client := ec2.New(ec2.Options{Region: "us-east-1", BaseEndpoint: &endpoint, RetryMaxAttempts: 1,
		HTTPClient: &http.Client{Timeout: time.Second},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDCLOUD", SecretAccessKey: "fake"}, nil
		})})
	id := node.Spec.ProviderID[strings.LastIndexByte(node.Spec.ProviderID, '/')+1:]
	out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	var answer smithy.APIError
	switch {
	case errors.As(err, &answer) && answer.ErrorCode() == "InvalidInstanceID.NotFound":
		return "", nil
	case err != nil:
		return "", err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State != nil && aws.ToString(i.InstanceId) == id {
				return i.State.Name, nil
			}
		}
	}
	return "", nil
}
