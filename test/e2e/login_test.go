package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"k8s.io/client-go/util/cert"

	"github.com/castai/kops-spot/internal/spot"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
	"github.com/castai/kops-spot/test/testenv"
)

// Who STS knows, and what the cluster's authenticator makes of them.
const (
	account      = "123456789012"
	roleARN      = "arn:aws:iam::" + account + ":role/CastLambdaRoleForSpot"
	iamUser      = "cast-spot" // who the mapped role is in the cluster
	handlerGroup = "cast:spot-handler"
)

var (
	mapped   = fakests.RoleSession(account, "CastLambdaRoleForSpot", function)
	unmapped = fakests.RoleSession(account, "SomebodyElse", function)
	forged   = fakests.RoleSession(account, "Forged", function) // whose key is known and whose secret is not ours
)

// authenticatorOptions are those of the control plane that all tests share.
func authenticatorOptions() testenv.AuthenticatorOptions {
	return testenv.AuthenticatorOptions{ClusterID: cluster, Identities: []fakests.Identity{mapped, unmapped, forged},
		Mappings: []testenv.Mapping{{ARN: roleARN, Username: iamUser, Groups: []string{handlerGroup}}}}
}

// by has the function run as an AWS identity, and log in to the cluster so.
func (r *fixture) by(id fakests.Identity) *fixture {
	r.env["KOPS_SPOT_LOGIN"] = "iam"
	r.env["AWS_ACCESS_KEY_ID"], r.env["AWS_SECRET_ACCESS_KEY"], r.env["AWS_SESSION_TOKEN"] = id.AccessKeyID, id.SecretAccessKey, id.SessionToken
	r.env["AWS_ENDPOINT_URL_STS"] = shared.auth.STSURL()
	return r
}

// asked is how often somebody has asked STS for himself, rather than having been asked for by the authenticator.
func asked(id fakests.Identity) (n int) {
	for _, q := range shared.auth.STS().Requests() {
		if q.AccessKeyID == id.AccessKeyID && !q.Presigned {
			n++
		}
	}
	return n
}

// TestIAMLogin: the function's role drains a node under the shipped RBAC, through aws-iam-authenticator's own server.
func TestIAMLogin(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2})
	r.by(mapped)
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	if n := len(r.podsOn(victim)); n != 0 {
		t.Errorf("%d pods are left", n)
	}
	log, err := r.cp.AuditLog()
	if err != nil {
		t.Fatal(err)
	}
	var evictions int
	for _, q := range log {
		if q.User == iamUser && q.Namespace == r.namespace && q.Subresource == "eviction" {
			evictions++
		}
	}
	if evictions < 2 {
		t.Errorf("%d evictions by %s", evictions, iamUser)
	}
}

// TestIAMLoginRefused: the API server answers all of these with one and the same bare 401.
func TestIAMLoginRefused(t *testing.T) {
	t.Parallel()
	wrongSecret := forged
	wrongSecret.SecretAccessKey = strings.Repeat("x", 40)
	for name, c := range map[string]struct {
		id    fakests.Identity
		login string
		want  []string
	}{
		"a key that is none": {fakests.RoleSession(account, "Nobody", "x"), "iam", []string{"AWS rejects it, too", "InvalidClientTokenId"}},
		"a wrong secret":     {wrongSecret, "iam", []string{"AWS rejects it, too", "SignatureDoesNotMatch"}},
		"an unmapped role":   {unmapped, "iam", []string{unmapped.ARN, `cluster ID "` + cluster + `"`, "does not know one of the two", "map arn:aws:iam::" + account + ":role/SomebodyElse"}},
		"a wrong cluster id": {mapped, "iam:another.example.com", []string{mapped.ARN, `cluster ID "another.example.com"`, "does not know one of the two"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			victim := r.node()
			r.by(c.id).env["KOPS_SPOT_LOGIN"] = c.login
			before := asked(c.id)
			said := r.refused(victim)
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in: %s", want, said)
				}
			}
			if n := asked(c.id) - before; n != 1 {
				t.Errorf("STS was asked %d times", n)
			}
			if strings.Contains(said+r.logs.String(), c.id.SecretAccessKey) || strings.Contains(said+r.logs.String(), c.id.SessionToken) {
				t.Error("a secret stands in the error or in the log")
			}
		})
	}
}

// TestPublicCertificate: the API's load balancer has a certificate that the system's roots know, and for its own name.
func TestPublicCertificate(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	delete(r.env, "KOPS_SPOT_CA")
	delete(r.env, "KOPS_SPOT_TLS_SERVER_NAME")
	if said := r.refused(victim); !strings.Contains(said, "KOPS_SPOT_CA") {
		t.Errorf("it trusts whom it does not know: %s", said)
	}
	r.env["SSL_CERT_FILE"] = r.file("roots.pem", string(r.cp.AdminConfig().CAData))
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
}

// refused demands that the node could not be worked on, quickly, and returns why.
func (r *fixture) refused(victim string) string {
	r.Helper()
	out := r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Incomplete)
	if took := *out.Timings.Finished - *out.Timings.Started; took > 30 {
		r.Errorf("it took %v s to see that", took)
	}
	if out.Replacement.Action != spot.ReplaceDetach {
		r.Errorf("the other half was given up: %+v", out.Replacement)
	}
	return strings.Join(out.Problems, "\n")
}

// TestClockRefused: to STS our clock is wrong. It is the one test that moves the clock of all, so it runs alone.
func TestClockRefused(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 20 * time.Minute, "behind": -20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			shared.auth.STS().SetClock(ahead)
			defer shared.auth.STS().SetClock(0)
			r := newSerialRig(t)
			victim := r.node()
			if said := r.by(mapped).refused(victim); !strings.Contains(said, "AWS rejects the local clock") {
				t.Errorf("it does not name the clock: %s", said)
			}
		})
	}
}

// TestSecretIsTakenUp: a token and a CA bundle that are put right where they are kept are taken up by the function as it
// runs, without anything being deployed.
func TestSecretIsTakenUp(t *testing.T) {
	t.Parallel()
	wrongCA, _, err := cert.GenerateSelfSignedCertKey("api.internal."+cluster, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	expired := "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln"
	for name, keep := range map[string]func(t *testing.T, url string) (login string, put func(token, ca string)){
		"in Secrets Manager": inSecretsManager,
		"in a SecureString":  inParameterStore,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 1})
			moto := r.moto()
			login, put := keep(t, moto.URL)
			r.env["KOPS_SPOT_LOGIN"], r.env["KOPS_SPOT_CA"] = login, login
			r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"], r.env["AWS_ENDPOINT_URL_SSM"] = moto.URL, moto.URL
			right := string(r.cp.AdminConfig().CAData)
			s := r.service()
			event := r.encode(r.warning(spot.SpotTerminate, victim, 0))
			for _, step := range []struct {
				token, ca string
				fails     bool // with the instance detached already, there is nothing left that it could do
				result    spot.Result
				want      string
			}{
				{expired, string(wrongCA), false, spot.Incomplete, "KOPS_SPOT_CA"},
				{expired, right, true, "", "the token expired on"},
				{shared.token, right, false, spot.Drained, ""},
			} {
				put(step.token, step.ca)
				res := r.invoke(s, event)
				if failed := res.FunctionError != ""; failed != step.fails {
					t.Fatalf("%s", res.Payload)
				}
				if !step.fails {
					r.outcome(res, step.result)
				}
				if said := string(res.Payload); !strings.Contains(said, step.want) || strings.Contains(said, step.token) {
					t.Errorf("it says %s, and should say %q", said, step.want)
				}
				time.Sleep(6 * time.Second) // what was just read is not read again at once
			}
			if starts := strings.Count(r.logs.String(), "Init Duration"); starts != 1 {
				t.Errorf("the function was started %d times", starts)
			}
		})
	}
}

func motoConfig(url string) aws.Config {
	return aws.Config{Region: region, BaseEndpoint: aws.String(url), Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")}
}

func both(t *testing.T, token, ca string) *string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"token": token, "ca": ca})
	if err != nil {
		t.Fatal(err)
	}
	return aws.String(string(b))
}

func inSecretsManager(t *testing.T, url string) (string, func(token, ca string)) {
	client := secretsmanager.NewFromConfig(motoConfig(url))
	if _, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("cast/prod"), SecretString: aws.String("{}")}); err != nil {
		t.Fatal(err)
	}
	return "secretsmanager:cast/prod", func(token, ca string) {
		_, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("cast/prod"), SecretString: both(t, token, ca)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func inParameterStore(t *testing.T, url string) (string, func(token, ca string)) {
	client := ssm.NewFromConfig(motoConfig(url))
	return "ssm:/cast/prod", func(token, ca string) {
		_, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String("/cast/prod"), Value: both(t, token, ca),
			Type: ssmtypes.ParameterTypeSecureString, Overwrite: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSecretThatIsNotThere: the error names the secret and what to do, and the other half of the work goes on.
func TestSecretThatIsNotThere(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	moto := r.moto()
	r.env["KOPS_SPOT_LOGIN"], r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = "secretsmanager:cast/nowhere", moto.URL
	if said := r.refused(victim); !strings.Contains(said, "reading secret cast/nowhere of Secrets Manager") || !strings.Contains(said, "ResourceNotFoundException") {
		t.Errorf("it says %s", said)
	}
}
