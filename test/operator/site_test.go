package operator

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/change"
)

// stateStore: the specification in the state store shows whether the function must be in the VPC, and how long kubelets
// delay a shutdown.
func stateStore(t *testing.T) {
	w := home(t)
	buckets := s3.NewFromConfig(w.direct)
	store, key := aws.String("state-store-of-kops"), aws.String("kops/"+cluster+"/cluster-completed.spec")
	must(buckets.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: store,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: region}}))
	defer func() {
		must(buckets.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: store, Key: key}))
		must(buckets.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: store}))
	}()
	annotate := func(value string) {
		patch := `{"metadata": {"annotations": {"addons.k8s.io/core": ` + value + `}}}`
		must(cp().Client().CoreV1().Namespaces().Patch(t.Context(), kubeSystem, apitypes.MergePatchType, []byte(patch), metav1.PatchOptions{}))
	}
	channel := `"{\"channel\": \"s3://` + *store + `/kops/` + cluster + `/addons/bootstrap-channel.yaml\"}"`
	annotate(channel)
	defer annotate("null")
	before := func(more ...string) (commandResult, string, error) {
		return w.asJSON(append([]string{"check", "--pre", "--code", code(), "--set", "Architecture=x86_64"}, more...)...)
	}
	says := func(is commandResult, name, detail, advice string) {
		t.Helper()
		for _, f := range is.Findings {
			if f.Name == name && strings.Contains(f.Detail, detail) && strings.Contains(f.Advice, advice) {
				return
			}
		}
		t.Errorf("%s: missing %q with the advice %q\n%s", name, detail, advice, show(is.Findings))
	}

	is, stderr, err := before()
	if err != nil {
		t.Fatalf("without a specification: %v\n%s", err, stderr)
	}
	says(is, "state store", "s3://state-store-of-kops/kops/"+cluster+"/cluster-completed.spec does not exist", "guessed")
	says(is, "shutdown", "unknown for nodes-eu-west-1a: reading configz of node "+homeWorker, "")
	put := func(text string) {
		must(buckets.PutObject(t.Context(), &s3.PutObjectInput{Bucket: store, Key: key, Body: strings.NewReader(text)}))
	}
	put("metadata: {name: " + cluster + "}\nspec: {kubernetesApiAccess: [203.0.113.0/24], kubelet: {shutdownGracePeriod: 30s, shutdownGracePeriodCriticalPods: 10s}}\n")
	instances := aws.String("kops/" + cluster + "/instancegroup/nodes-eu-west-1a")
	must(buckets.PutObject(t.Context(), &s3.PutObjectInput{Bucket: store, Key: instances, Body: strings.NewReader("spec: {kubelet: {shutdownGracePeriod: 25s}}\n")}))
	defer func() { must(buckets.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: store, Key: instances})) }()
	if is, stderr, err = before(); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	says(is, "network", "by the state store, the API allows only 203.0.113.0/24", "--set SubnetIds=… (the VPC has no private subnet")
	says(is, "shutdown", "15 s in nodes-eu-west-1a (state store)", "ShutdownGrace=15s")
	annotate("null")
	if is, stderr, err = before("--state", "s3://"+*store+"/kops"); err != nil {
		t.Fatalf("with --state: %v\n%s", err, stderr)
	}
	says(is, "network", "by the state store, the API allows only 203.0.113.0/24", "")
	annotate(channel)
	if _, stderr, err := w.command(installed("--set", "SubnetIds=subnet-0123456789abcdef0", "--set", "SecurityGroupIds=sg-0123456789abcdef0", "--yes")...); err == nil ||
		!strings.Contains(stderr, "subnet subnet-0123456789abcdef0 is not in the cluster's VPC") {
		t.Errorf("a subnet that is not there: %v\n%s", err, stderr)
	}
	client := ec2.NewFromConfig(w.direct)
	node := must(client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{{Name: aws.String("tag:KubernetesCluster"),
		Values: []string{cluster}}}})).Reservations[0].Instances[0]
	group := must(client.CreateSecurityGroup(t.Context(), &ec2.CreateSecurityGroupInput{VpcId: node.VpcId, GroupName: aws.String("function"),
		Description: aws.String("of the function")})).GroupId
	defer client.DeleteSecurityGroup(context.WithoutCancel(t.Context()), &ec2.DeleteSecurityGroupInput{GroupId: group})
	inVPC := []string{"--set", "SubnetIds=" + *node.SubnetId, "--set", "SecurityGroupIds=" + *group}
	if is, stderr, err = before(inVPC...); err == nil || is.First != "network" || strings.Contains(stderr, "put the function into the VPC") {
		t.Errorf("subnets without a route: %v\n%s", err, stderr)
	}
	says(is, "network", "has no default route; the VPC has no interface endpoint for ec2, autoscaling", "--subnet-ids "+*node.SubnetId)
	if _, stderr, err := w.command(installed(append(inVPC, "--yes")...)...); err == nil ||
		!strings.Contains(stderr, "nothing was changed: fix what failed above") {
		t.Errorf("install: %v\n%s", err, stderr)
	}
	must(client.AuthorizeSecurityGroupIngress(t.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, IpProtocol: aws.String("tcp"),
		FromPort: aws.Int32(443), ToPort: aws.Int32(443), CidrIp: aws.String("10.0.0.0/16")}))
	for _, service := range []string{"ec2", "autoscaling", "events", "secretsmanager"} { // the last one for a token, without an authenticator
		endpoint := must(client.CreateVpcEndpoint(t.Context(), &ec2.CreateVpcEndpointInput{VpcId: node.VpcId, SubnetIds: []string{*node.SubnetId},
			ServiceName: aws.String("com.amazonaws." + region + "." + service), VpcEndpointType: ec2types.VpcEndpointTypeInterface,
			SecurityGroupIds: []string{*group}, PrivateDnsEnabled: aws.Bool(true)})).VpcEndpoint
		defer client.DeleteVpcEndpoints(context.WithoutCancel(t.Context()), &ec2.DeleteVpcEndpointsInput{VpcEndpointIds: []string{*endpoint.VpcEndpointId}})
	}
	if is, stderr, err = before(inVPC...); err != nil {
		t.Errorf("subnets with endpoints: %v\n%s", err, stderr)
	}
	says(is, "network", "the VPC has interface endpoints for ec2, autoscaling, events", "")
	put("metadata: {name: staging.example.com}\n")
	if _, stderr, err := w.command(installed("--yes")...); err == nil || !strings.Contains(stderr, `belongs to the cluster "staging.example.com"`) {
		t.Errorf("another cluster's specification: %v\n%s", err, stderr)
	}
}

// componentsFound: other programs that drain or launch nodes are found by their images.
func componentsFound(t *testing.T) {
	w := home(t)
	deployments := cp().Client().AppsV1().Deployments(kubeSystem)
	for name, image := range map[string]string{"node-terminator": "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25.5", "scaler": "registry.example.com/cluster-autoscaler:v1.31.0"} {
		labels := map[string]string{"app": name}
		must(deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(0)),
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}}}}}, metav1.CreateOptions{}))
		defer deployments.Delete(t.Context(), name, metav1.DeleteOptions{})
	}
	is, stderr, err := w.asJSON(slices.Concat([]string{"check", "--pre"}, installed()[1:])...)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	found := map[string]change.Finding{}
	for _, f := range is.Findings {
		found[f.Name] = f
	}
	if f := found["aws-node-termination-handler"]; f.Level != change.OK || !strings.Contains(f.Detail, "Deployment kube-system/node-terminator: leave it: both may run") {
		t.Errorf("%+v", f)
	}
	if f := found["cluster-autoscaler"]; f.Level != change.OK || !strings.Contains(f.Detail, "Deployment kube-system/scaler") {
		t.Errorf("%+v", f)
	}
	if f, there := found["Karpenter"]; there {
		t.Errorf("%+v", f)
	}
}
