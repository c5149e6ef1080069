package onboarding

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/test/testenv"
)

// TestTheBinary is an operator's way in each way that a cluster may know IAM: kops-spot onboard lets the role in, which logs in
// then; once more it changes nothing; and kops-spot offboard leaves everything as it was.
func TestTheBinary(t *testing.T) {
	if err := shared.cp.Apply(t.Context(), []byte(testenv.MappingsCRD)); err != nil {
		t.Fatal(err)
	}
	run := operator(t)
	for _, c := range []struct {
		mode          string
		awsAuth, file map[string]string
	}{
		{mode: testenv.EKSConfigMap, awsAuth: map[string]string{"mapUsers": theirUsers, "mapRoles": "[]\n"}},
		{mode: testenv.CRD},
		{mode: "", file: map[string]string{"config.yaml": theirFile}},
	} {
		t.Run("mode "+c.mode, func(t *testing.T) {
			setUp(t, "aws-auth", c.awsAuth)
			setUp(t, daemonName, c.file)
			authenticator(t, c.mode)
			becomes(t, logIn(function), "")

			pre := run(t, "check", "--pre")
			if i := slices.IndexFunc(pre.Findings, func(f change.Finding) bool { return f.Name == "log-in" }); i < 0 ||
				pre.Findings[i].Detail != "the function is to log in by iam, as the role CastLambdaRoleForSpot" {
				t.Errorf("before: %+v", pre.Findings)
			}
			if first := run(t, "onboard", "--yes"); !first.Applied || first.Findings.Failed() {
				t.Errorf("the first run: %+v", first)
			}
			settled(t)
			becomes(t, logIn(function), handlerName, onboard.HandlerGroup)
			mayDoItsPart(t, logIn(function))
			becomes(t, logIn(user), "") // whom the guide would make a master, and nobody has asked for that

			before := versions(t)
			if second := run(t, "onboard", "--yes"); second.Applied || !second.Plan.Empty() {
				t.Errorf("the second run: %+v", second)
			}
			if after := versions(t); after != before {
				t.Errorf("the second run has changed\n%s\nto\n%s", before, after)
			}

			if away := run(t, "offboard", "--yes"); !away.Applied || away.Findings.Failed() {
				t.Errorf("offboarding: %+v", away)
			}
			settled(t)
			becomes(t, logIn(function), "")
			if is := data(t, "aws-auth"); !sameTexts(t, is, c.awsAuth) {
				t.Errorf("aws-auth was\n%q\nand is\n%q", c.awsAuth, is)
			}
			if is := data(t, daemonName); !sameTexts(t, is, c.file) {
				t.Errorf("the file was\n%q\nand is\n%q", c.file, is)
			}
			checkGone(t)
		})
	}
}

// told is what the binary tells as JSON.
type told struct {
	Applied  bool
	Plan     change.Plan
	Findings change.Findings
}

// operator makes an account in which the cluster is, and returns how its operator runs the binary.
func operator(t *testing.T) func(t *testing.T, args ...string) told {
	t.Helper()
	bootstrap, err := testenv.BuildBootstrap(t.Context()) // and with it the command line
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
	t.Setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
	moto, err := testenv.StartMoto(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := moto.Stop(); err != nil {
			t.Error(err)
		}
	})
	cfg := aws.Config{Region: region, BaseEndpoint: &moto.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")}
	in, err := awssts.NewFromConfig(cfg).AssumeRole(t.Context(), &awssts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::" + account + ":role/administrator"), RoleSessionName: aws.String("test")})
	if err != nil {
		t.Fatal(err)
	}
	c := in.Credentials
	cfg.Credentials = credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	out, err := ec2.NewFromConfig(cfg).RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1),
		MaxCount: aws.Int32(1), TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance,
			Tags: []ec2types.Tag{{Key: aws.String("KubernetesCluster"), Value: aws.String(cluster)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	id := *out.Instances[0].InstanceId
	if err := shared.cp.CreateNodes(t.Context(), testenv.Node{InstanceID: id, Zone: region + "a"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.cp.Client().CoreV1().Nodes().Delete(t.Context(), id, metav1.DeleteOptions{}); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return func(t *testing.T, args ...string) (is told) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(bootstrap), "kops-spot"), append(args, "--cluster", cluster, "--region", region, "--output", "json")...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "KUBECONFIG=" + shared.cp.Kubeconfig(), "AWS_ENDPOINT_URL=" + moto.URL,
			"AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=" + *c.AccessKeyId, "AWS_SECRET_ACCESS_KEY=" + *c.SecretAccessKey, "AWS_SESSION_TOKEN=" + *c.SessionToken}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		unread := json.Unmarshal(stdout.Bytes(), &is)
		if without := strings.Contains(stderr.String(), "code is broken"); unread != nil || err != nil && !without {
			t.Fatalf("kops-spot %q: %v\n%s%s", args, err, stdout.String(), stderr.String())
		}
		return is
	}
}
