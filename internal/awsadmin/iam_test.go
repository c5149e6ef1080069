package awsadmin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
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

// TestCredentials reads everything because of which IAM does not delete a user.
func TestCredentials(t *testing.T) {
	answers := map[string]string{
		"GetLoginProfile":                "<LoginProfile><UserName>u</UserName></LoginProfile>",
		"ListMFADevices":                 "<MFADevices><member><SerialNumber>arn:aws:iam::1:mfa/m</SerialNumber></member></MFADevices>",
		"ListSSHPublicKeys":              "<SSHPublicKeys><member><SSHPublicKeyId>APKA</SSHPublicKeyId></member></SSHPublicKeys>",
		"ListSigningCertificates":        "<Certificates><member><CertificateId>C</CertificateId></member></Certificates>",
		"ListServiceSpecificCredentials": "<ServiceSpecificCredentials><member><ServiceName>codecommit.amazonaws.com</ServiceName><ServiceSpecificCredentialId>ACCA</ServiceSpecificCredentialId></member></ServiceSpecificCredentials>",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action, code := r.FormValue("Action"), map[string]string{"GetLoginProfile": "NoSuchEntity", "ListServiceSpecificCredentials": "NotSupportedService"}
		switch result := answers[action]; {
		case result != "":
			io.WriteString(w, "<R><"+action+"Result>"+result+"</"+action+"Result></R>")
		case code[action] != "":
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "<ErrorResponse><Error><Code>"+code[action]+"</Code></Error></ErrorResponse>")
		default:
			io.WriteString(w, "<R><"+action+"Result/></R>")
		}
	}))
	defer server.Close()
	a := New(aws.Config{Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
	list := func() (lines []string) {
		all, err := a.credentials(t.Context(), "u")
		if err != nil {
			t.Error(err)
		}
		for _, c := range all {
			lines = append(lines, c.Kind+" "+c.ID+": "+strings.Join(c.Remove, " "))
		}
		return lines
	}
	want := []string{"console password : delete-login-profile", "MFA device arn:aws:iam::1:mfa/m: deactivate-mfa-device --serial-number arn:aws:iam::1:mfa/m",
		"SSH key APKA: delete-ssh-public-key --ssh-public-key-id APKA", "signing certificate C: delete-signing-certificate --certificate-id C",
		"credential for codecommit.amazonaws.com ACCA: delete-service-specific-credential --service-specific-credential-id ACCA"}
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	clear(answers)
	if got := list(); len(got) > 0 {
		t.Errorf("none, or not in the partition: %q", got)
	}
}
