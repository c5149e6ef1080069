package awsadmin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// TestRolesOfProfile: a role's ARN has its path, and so must a policy about it.
func TestRolesOfProfile(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `<GetInstanceProfileResponse><GetInstanceProfileResult><InstanceProfile><Roles>
			<member><RoleName>nodes</RoleName><Path>/</Path></member>
			<member><RoleName>spot</RoleName><Path>/teams/a/</Path></member>
		</Roles></InstanceProfile></GetInstanceProfileResult></GetInstanceProfileResponse>`)
	}))
	defer server.Close()
	a := New(aws.Config{Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
	got, err := a.RolesOfProfile(t.Context(), "p")
	if want := []string{"nodes", "teams/a/spot"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// TestDecode: IAM encodes policy documents by RFC 3986, in which a plus sign is itself.
func TestDecode(t *testing.T) {
	for encoded, want := range map[string]string{
		"%7B%22Resource%22%3A%22role%2Fa+b%20c%22%7D": `{"Resource":"role/a+b c"}`,
		`{"Resource": "100%"}`:                        `{"Resource": "100%"}`,
	} {
		if got := decode(&encoded); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
