package iamcloud

import (
	"fmt"
	"strings"
	"testing"
)

func TestACallIsShownAsACommandLine(t *testing.T) {
	const arn = "arn:aws:iam::123456789012:policy/P"
	for _, c := range []struct {
		call Call
		want string
	}{
		{CreateUser("u", map[string]string{"b": "2 3", "a": "it's"}), `aws iam create-user --user-name u --tags Key=a,Value='it'\''s' Key=b,Value='2 3'`},
		{TagUser("u", map[string]string{"k": "v"}), "aws iam tag-user --tags Key=k,Value=v --user-name u"},
		{UntagUser("u", "a:b", "c"), "aws iam untag-user --tag-keys a:b c --user-name u"},
		{AttachUserPolicy("u", arn), "aws iam attach-user-policy --policy-arn " + arn + " --user-name u"},
		{PutUserPolicy("u", "P", `{"x": 1}`), "aws iam put-user-policy --policy-document file://P.json --policy-name P --user-name u"},
		{CreatePolicyVersion("P", arn, "{}"), "aws iam create-policy-version --policy-arn " + arn + " --policy-document file://P.json --set-as-default"},
		{CreateRole("r", "d", "{}", nil), "aws iam create-role --assume-role-policy-document file://r-trust.json --role-name r --description d"},
		{UpdateTrust("r", "{}"), "aws iam update-assume-role-policy --policy-document file://r-trust.json --role-name r"},
		{DeactivateKey("u", "AKIA"), "aws iam update-access-key --access-key-id AKIA --status Inactive --user-name u"},
		{DeleteSecret("a/b"), "aws secretsmanager delete-secret --secret-id a/b --force-delete-without-recovery --region eu-west-1"},
		{RemoveTargets("r", "default", []string{"1", "2"}), "aws events remove-targets --ids 1 2 --rule r --event-bus-name default --region eu-west-1"},
		{DeleteFunction("f"), "aws lambda delete-function --function-name f --region eu-west-1"},
	} {
		if got := c.call.Command("eu-west-1"); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
	if file, text := PutRolePolicy("r", "P", `{"x": 1}`).Document(); file != "P.json" || text != `{"x": 1}` {
		t.Errorf("the document is %s in %s", text, file)
	}
	if file, _ := DeleteRole("r").Document(); file != "" {
		t.Errorf("a call without a document has %s", file)
	}
}

func TestAnActionIsNamedAsIAMWritesIt(t *testing.T) {
	for want, c := range map[string]Call{"iam:UpdateAssumeRolePolicy": UpdateTrust("r", "{}"), "secretsmanager:CreateSecret": CreateSecret("s", "", nil), "events:DeleteRule": DeleteRule("r", "b")} {
		if got := c.Action(); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

func TestAKeyThatIsPrintedDoesNotTellItsSecret(t *testing.T) {
	k := NewKey{ID: "AKIA", Secret: "never to be seen"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{k, &k} {
			if got := fmt.Sprintf(format, v); strings.Contains(got, k.Secret) {
				t.Errorf("%s of %T is %s", format, v, got)
			}
		}
	}
}
