package install

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/change"
)

// TestTheStateStoreIsRead, and says whether the function has to be in the VPC.
func TestTheStateStoreIsRead(t *testing.T) {
	world.cut.Reset()
	buckets := s3.NewFromConfig(world.aws)
	store, key := aws.String("state-store-of-kops"), aws.String("kops/"+cluster+"/config")
	get[*s3.CreateBucketOutput](t)(buckets.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: store,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: region}}))
	defer func() {
		get[*s3.DeleteObjectOutput](t)(buckets.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: store, Key: key}))
		get[*s3.DeleteBucketOutput](t)(buckets.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: store}))
	}()
	annotate := func(value string) {
		patch := `{"metadata": {"annotations": {"addons.k8s.io/core": ` + value + `}}}`
		_, err := world.cp.Client().CoreV1().Namespaces().Patch(context.WithoutCancel(t.Context()), "kube-system", apitypes.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	annotate(`"{\"channel\": \"s3://` + *store + `/kops/` + cluster + `/addons/bootstrap-channel.yaml\"}"`)
	defer annotate("null")
	before := func(more ...string) (told, string, error) {
		return asJSON(t, append([]string{"check", "--pre", "--code", world.code, "--set", "Architecture=x86_64"}, more...)...)
	}
	says := func(is told, name, detail, advice string) {
		t.Helper()
		for _, f := range is.Findings {
			if f.Name == name && strings.Contains(f.Detail, detail) && strings.Contains(f.Advice, advice) {
				return
			}
		}
		t.Errorf("%s does not say %q, and what to do: %q\n%s", name, detail, advice, show(is.Findings))
	}

	is, stderr, err := before()
	if err != nil {
		t.Fatalf("without a specification: %v\n%s", err, stderr)
	}
	says(is, "state store", "there is no s3://state-store-of-kops/kops/"+cluster+"/config", "guessed")
	put := func(text string) {
		get[*s3.PutObjectOutput](t)(buckets.PutObject(t.Context(), &s3.PutObjectInput{Bucket: store, Key: key, Body: strings.NewReader(text)}))
	}
	put("metadata: {name: " + cluster + "}\nspec: {kubernetesApiAccess: [203.0.113.0/24]}\n")
	if is, stderr, err = before(); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	says(is, "network", "the API lets in 203.0.113.0/24 alone, as the state store says", "--set SubnetIds=… (the VPC has no private subnet")
	if _, stderr, err := kopsSpot(t, installed("--set", "SubnetIds=subnet-0123456789abcdef0", "--set", "SecurityGroupIds=sg-0123456789abcdef0", "--yes")...); err == nil ||
		!strings.Contains(stderr, "there is no subnet subnet-0123456789abcdef0 in the cluster's VPC") {
		t.Errorf("a subnet that is not there: %v\n%s", err, stderr)
	}
	put("metadata: {name: staging.example.com}\n")
	if _, stderr, err := kopsSpot(t, installed("--yes")...); err == nil || !strings.Contains(stderr, `is of the cluster "staging.example.com"`) {
		t.Errorf("another cluster's specification: %v\n%s", err, stderr)
	}
}

// TestOthersAreFound who drain nodes or make them, by the images of what the cluster runs.
func TestOthersAreFound(t *testing.T) {
	world.cut.Reset()
	deployments := world.cp.Client().AppsV1().Deployments("kube-system")
	for name, image := range map[string]string{"node-terminator": "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25.5", "scaler": "registry.example.com/cluster-autoscaler:v1.31.0"} {
		labels := map[string]string{"app": name}
		_, err := deployments.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(0)),
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}}}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer deployments.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})
	}
	is, stderr, err := asJSON(t, slices.Concat([]string{"check", "--pre"}, installed()[1:])...)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	found := map[string]change.Finding{}
	for _, f := range is.Findings {
		found[f.Name] = f
	}
	if f := found["aws-node-termination-handler"]; f.Level != change.Warn || !strings.Contains(f.Detail, "Deployment kube-system/node-terminator") || !strings.Contains(f.Advice, "enabled: false") {
		t.Errorf("%+v", f)
	}
	if f := found["cluster-autoscaler"]; f.Level != change.OK || !strings.Contains(f.Detail, "Deployment kube-system/scaler") {
		t.Errorf("%+v", f)
	}
	if f, there := found["Karpenter"]; there {
		t.Errorf("%+v", f)
	}
}
