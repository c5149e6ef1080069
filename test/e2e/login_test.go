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

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
	"github.com/castai/kops-spot/test/testenv"
)

// Identities known to STS, and their mappings in the cluster.
const (
	account      = "123456789012"
	roleARN      = "arn:aws:iam::" + account + ":role/CastLambdaRoleForSpot"
	iamUser      = "cast-spot" // the username of the mapped role
	handlerGroup = "cast:spot-handler"
)

var (
	mapped   = fakests.RoleSession(account, "CastLambdaRoleForSpot", function)
	unmapped = fakests.RoleSession(account, "SomebodyElse", function)
	forged   = fakests.RoleSession(account, "Forged", function) // a known key ID with a wrong secret
)

// authenticatorOptions configures the authenticator of the shared control plane.
func authenticatorOptions() testenv.AuthenticatorOptions {
	return testenv.AuthenticatorOptions{ClusterID: cluster, Identities: []fakests.Identity{mapped, unmapped, forged},
		Mappings: []testenv.Mapping{{ARN: roleARN, Username: iamUser, Groups: []string{handlerGroup}}}}
}

// as runs the function as an AWS identity, with which it authenticates to the cluster.
func (r *fixture) as(id fakests.Identity) *fixture {
	r.env["KOPS_SPOT_LOGIN"] = "iam"
	r.env["AWS_ACCESS_KEY_ID"], r.env["AWS_SECRET_ACCESS_KEY"], r.env["AWS_SESSION_TOKEN"] = id.AccessKeyID,
		id.SecretAccessKey, id.SessionToken
	r.env["AWS_ENDPOINT_URL_STS"] = shared.auth.STSURL()
	return r
}

// asked counts the requests to STS by the identity itself, not those that it presigned for the authenticator.
func asked(id fakests.Identity) (n int) {
	for _, q := range shared.auth.STS().Requests() {
		if q.AccessKeyID == id.AccessKeyID && !q.Presigned {
			n++
		}
	}
	return n
}

// TestIAMAuthentication: the function's role drains a node with the shipped RBAC through aws-iam-authenticator's
// server.
func TestIAMAuthentication(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2})
	r.as(mapped)
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	if n := len(r.podsOn(victim)); n != 0 {
		t.Errorf("%d pods remain", n)
	}
	log, err := r.cp.AuditLog()
	must(t, err)
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

// TestIAMAuthenticationRefused: the API server answers all of these with the same bare 401.
func TestIAMAuthenticationRefused(t *testing.T) {
	t.Parallel()
	wrongSecret := forged
	wrongSecret.SecretAccessKey = strings.Repeat("x", 40)
	for name, c := range map[string]struct {
		id    fakests.Identity
		login string
		want  []string
	}{
		"an unknown key": {fakests.RoleSession(account, "Nobody", "x"), "iam",
			[]string{"AWS rejects it, too", "InvalidClientTokenId"}},
		"a wrong secret": {wrongSecret, "iam", []string{"AWS rejects it, too", "SignatureDoesNotMatch"}},
		"an unmapped role": {unmapped, "iam", []string{unmapped.ARN, `cluster ID "` + cluster + `"`,
			"does not know one of the two", "map arn:aws:iam::" + account + ":role/SomebodyElse"}},
		"a wrong cluster ID": {mapped, "iam:another.example.com",
			[]string{mapped.ARN, `cluster ID "another.example.com"`, "does not know one of the two"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.as(c.id).env["KOPS_SPOT_LOGIN"] = c.login
			before := asked(c.id)
			said := r.refused(victim)
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in: %s", want, said)
				}
			}
			if n := asked(c.id) - before; n != 1 {
				t.Errorf("STS got %d requests", n)
			}
			if strings.Contains(said+r.logs.String(), c.id.SecretAccessKey) ||
				strings.Contains(said+r.logs.String(), c.id.SessionToken) {
				t.Error("a secret is in the error or in the log")
			}
		})
	}
}

// TestPublicCertificate: the API's load balancer has a certificate that is valid for its own name and the system's
// roots.
func TestPublicCertificate(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	delete(r.env, "KOPS_SPOT_CA")
	if said := r.refused(victim); !strings.Contains(said, "KOPS_SPOT_CA") {
		t.Errorf("it trusts an unknown certificate: %s", said)
	}
	r.env["SSL_CERT_FILE"] = r.file("roots.pem", string(r.cp.AdminConfig().CAData))
	r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
}

// refused returns the problems of a function that cannot use the node. It tries until the deadline, which is near.
func (r *fixture) refused(victim string) string {
	r.Helper()
	out := r.handle(r.warning(spot.SpotTerminate, victim, 105*time.Second), spot.Incomplete)
	if at := *out.Timings.Finished; at < 119 || at > 122 {
		r.Errorf("it finished %v s after the event, want 120", at)
	}
	if out.Replacement.Action != spot.ReplaceDetach {
		r.Errorf("the instance was not detached: %+v", out.Replacement)
	}
	return strings.Join(out.Problems, "\n")
}

// TestClockRefused: the local clock is wrong for STS. This test changes the clock of the shared STS, so it runs alone.
func TestClockRefused(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 20 * time.Minute, "behind": -20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			shared.auth.STS().SetClock(ahead)
			defer shared.auth.STS().SetClock(0)
			r := newSerialFixture(t)
			victim := r.node()
			if said := r.as(mapped).refused(victim); !strings.Contains(said, "AWS rejects the local clock") {
				t.Errorf("it does not name the clock: %s", said)
			}
		})
	}
}

// TestSecretIsReloaded: the running function picks up a corrected token and CA bundle from the secret store.
func TestSecretIsReloaded(t *testing.T) {
	t.Parallel()
	wrongCA, _, err := cert.GenerateSelfSignedCertKey("api.internal."+cluster, nil, nil)
	must(t, err)
	expired := "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NjcyMjU2MDB9.c2ln"
	for name, keep := range map[string]func(t *testing.T, url string) (login string, put func(token, ca string)){
		"in Secrets Manager": inSecretsManager,
		"in a SecureString":  inParameterStore,
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 1})
			moto := r.moto()
			login, put := keep(t, moto.URL)
			r.env["KOPS_SPOT_LOGIN"], r.env["KOPS_SPOT_CA"] = login, login
			r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"], r.env["AWS_ENDPOINT_URL_SSM"] = moto.URL, moto.URL
			right := string(r.cp.AdminConfig().CAData)
			s := r.service()
			for _, step := range []struct {
				token, ca string
				fails     bool // the instance is already detached, so nothing else can be done
				result    spot.Result
				want      string
			}{
				{expired, string(wrongCA), false, spot.Incomplete, "KOPS_SPOT_CA"},
				{expired, right, true, "", "the token expired on"},
				{shared.token, right, false, spot.Drained, ""},
			} {
				put(step.token, step.ca)
				age := 105 * time.Second // it tries until the deadline
				if step.result == spot.Drained {
					age = 0
				}
				res := r.invoke(s, r.encode(r.warning(spot.SpotTerminate, victim, age)))
				if failed := res.FunctionError != ""; failed != step.fails {
					t.Fatalf("%s", res.Payload)
				}
				if !step.fails {
					r.outcome(res, step.result)
				}
				if said := string(res.Payload); !strings.Contains(said, step.want) ||
					strings.Contains(said, step.token) {
					t.Errorf("it says %s, want %q", said, step.want)
				}
				time.Sleep(6 * time.Second) // the function does not read a secret again at once
			}
			if starts := strings.Count(r.logs.String(), "Init Duration"); starts != 1 {
				t.Errorf("the function was started %d times", starts)
			}
		})
	}
}

func motoConfig(url string) aws.Config {
	return kopsaws.PlainBodies(aws.Config{Region: region, BaseEndpoint: aws.String(url),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
}

func both(t *testing.T, token, ca string) *string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"token": token, "ca": ca})
	must(t, err)
	return aws.String(string(b))
}

func inSecretsManager(t *testing.T, url string) (string, func(token, ca string)) {
	client := secretsmanager.NewFromConfig(motoConfig(url))
	if _, err := client.CreateSecret(t.Context(),
		&secretsmanager.CreateSecretInput{Name: aws.String("cast/prod"), SecretString: aws.String("{}")}); err != nil {
		t.Fatal(err)
	}
	return "secretsmanager:cast/prod", func(token, ca string) {
		_, err := client.PutSecretValue(t.Context(),
			&secretsmanager.PutSecretValueInput{SecretId: aws.String("cast/prod"), SecretString: both(t, token, ca)})
		must(t, err)
	}
}

func inParameterStore(t *testing.T, url string) (string, func(token, ca string)) {
	client := ssm.NewFromConfig(motoConfig(url))
	return "ssm:/cast/prod", func(token, ca string) {
		_, err := client.PutParameter(t.Context(),
			&ssm.PutParameterInput{Name: aws.String("/cast/prod"), Value: both(t, token, ca),
				Type: ssmtypes.ParameterTypeSecureString, Overwrite: aws.Bool(true)})
		must(t, err)
	}
}

// TestMissingSecret: the error names the secret and what to do, and the instance is detached all the same.
func TestMissingSecret(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	moto := r.moto()
	r.env["KOPS_SPOT_LOGIN"], r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = "secretsmanager:cast/nowhere", moto.URL
	if said := r.refused(victim); !strings.Contains(said, "reading secret cast/nowhere of Secrets Manager") ||
		!strings.Contains(said, "ResourceNotFoundException") {
		t.Errorf("it says %s", said)
	}
}
