package install

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apitypes "k8s.io/apimachinery/pkg/types"
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
