package template

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strconv"
	"sync"
	"testing"
	"time"

	iamservice "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/test/testenv"
)

const cluster = "prod.example.com"

// The parameter sets of the tests.
const (
	byDefault     = "by default"
	everything    = "everything switched on"
	nothing       = "an existing role"
	inVPC         = "in a VPC"
	secretARN     = "arn:aws:secretsmanager:" + Region + ":" + Account + ":secret:cast-kops/" + cluster + "/"
	parameterARN  = "arn:aws:ssm:" + Region + ":" + Account + ":parameter/cast-kops/"
	keyARN        = "arn:aws:kms:" + Region + ":" + Account + ":key/0f0e0d0c-1111-2222-3333-444455556666"
	boundary      = "arn:aws:iam::" + Account + ":policy/limits/Developers"
	existingRole  = "arn:aws:iam::" + Account + ":role/kops-spot"
	pager         = "arn:aws:sns:" + Region + ":" + Account + ":pager"
	pagerDutyKey  = "0123456789abcdef0123456789ABCDEF"
	castaiCluster = "0b1c2d3e-0000-4000-8000-0123456789ab"
)

var sets = map[string]Parameters{
	byDefault: needed(),
	everything: with(
		Parameters{"FunctionRole": "CastLambdaRoleForSpot-2", "PermissionsBoundary": boundary,
			"Login":         "secretsmanager:" + secretARN + "token-a1B2c3",
			"SecretArns":    secretARN + "token-a1B2c3," + secretARN + "castai-d4E5f6",
			"ParameterArns": parameterARN + "ca",
			"KeyArns":       keyARN,
			"CA":            "ssm:/cast-kops/ca", "Rebalance": "drain", "ScheduledChange": "drain",
			"Hooks":         "drain,prod/drain",
			"Rehearsals":    "act",
			"CASTAICluster": castaiCluster, "CASTAIKey": "secretsmanager:" + secretARN + "castai-d4E5f6",
			"CASTAIURL":        "https://api.eu.cast.ai",
			"SubnetIds":        "subnet-0123456789abcdef0,subnet-0123456789abcdef1,subnet-0123456789abcdef2",
			"SecurityGroupIds": "sg-0123456789abcdef0,sg-0123456789abcdef1", "ReservedConcurrency": "5",
			"NotifyEmail": "people@example.com", "NotifyStarted": "ENABLED", "AlarmTopicArn": pager,
			"NotifyUrl": "pagerduty+https://" + pagerDutyKey + "@events.eu.pagerduty.com/v2/enqueue"}),
	nothing: with(Parameters{"FunctionRole": existingRole, "Architecture": "x86_64", "Mode": "observe",
		"LogRetentionDays": "7"}),
	inVPC: with(Parameters{"FunctionRole": "CastLambdaRoleForSpot-4", "SubnetIds": "subnet-01234567",
		"SecurityGroupIds": "sg-01234567",
		"AlarmTopicArn":    pager}, nil),
}

// needed are the parameters without a default.
func needed() Parameters {
	return Parameters{"Cluster": cluster, "ShortName": iam.Name(cluster), "Server": "https://api." + cluster}
}

// with adds to the needed parameters.
func with(more ...Parameters) Parameters {
	p := needed()
	for _, m := range more {
		maps.Copy(p, m)
	}
	return p
}

// shared has what takes seconds to create.
var shared struct {
	*Transformed
	moto *testenv.Moto
}

func TestMain(m *testing.M) {
	start()
	testenv.Main(m, nil)
}

var start = testenv.Once(func(ctx context.Context) (_ struct{}, err error) {
	var notTransformed error
	var both sync.WaitGroup
	both.Go(func() { shared.Transformed, notTransformed = Transform(true, sets) })
	shared.moto, err = testenv.StartMoto(ctx, "")
	both.Wait()
	return struct{}{}, errors.Join(err, notTransformed)
}, func(struct{}) error { return shared.moto.Stop() })

// stack is the resolved template for one of the sets.
func stack(t *testing.T, set string) *Stack {
	t.Helper()
	tmpl := shared.Templates[set]
	if why := tmpl.Refuses(sets[set]); len(why) > 0 {
		t.Fatalf("the parameters are rejected: %v", why)
	}
	return tmpl.Resolve(sets[set])
}

// asKOps returns a CA as kOps creates it for a cluster, in base64.
func asKOps(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	serial, _ := new(big.Int).SetString("7000000000000000000", 10)
	ca := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "kubernetes-ca"},
		NotBefore: time.Now(),
		NotAfter:  time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	must(t, err)
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// number converts a number in a template, which may be a string.
func number(t testing.TB, v any) int {
	t.Helper()
	n, err := strconv.Atoi(fmt.Sprint(v))
	if err != nil {
		t.Fatalf("%v is not a number", v)
	}
	return n
}

func texts(list []string) []any {
	all := []any{}
	for _, s := range list {
		all = append(all, s)
	}
	return all
}

// makeRole creates a role before the stack.
func makeRole(t *testing.T, name string) {
	t.Helper()
	trust, err := iam.Render(iam.Trust, iam.Values{Account: Account})
	must(t, err)
	document := string(trust)
	if _, err := iamservice.NewFromConfig(settingsFor(Region)).CreateRole(t.Context(),
		&iamservice.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &document}); err != nil {
		t.Fatal(err)
	}
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
