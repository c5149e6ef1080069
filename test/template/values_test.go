package template

import (
	"fmt"
	"strconv"
	"testing"

	iamservice "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/castai/kops-spot/iam"
)

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
