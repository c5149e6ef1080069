package aws

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

// TestStoredValues: a value that is a JSON object contains named texts. Any other value is the text itself. Errors
// never contain the value.
func TestStoredValues(t *testing.T) {
	for _, c := range []struct{ stored, key, want string }{ // want is empty for a permanent error
		{`"SecretString":"a-token"`, "token", "a-token"},
		{`"SecretString":"{\"token\":\"a-token\",\"ca\":\"a-ca\"}"`, "ca", "a-ca"},
		{`"SecretString":"{\"token\":\"a-token\"}"`, "other", ""},
		{`"SecretString":"{\"token\":\"a-token\""`, "token", ""},
		{`"SecretBinary":"YS10b2tlbg=="`, "token", ""},
	} {
		cloud, _ := recorded(t, "{"+c.stored+"}")
		got, err := cloud.Secret(t.Context(), "cast/prod", c.key)
		if got != c.want || errors.Is(err, spot.ErrPermanent) != (c.want == "") {
			t.Errorf("%s, %s: got %q, %v", c.stored, c.key, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "a-token") || !strings.Contains(err.Error(), "cast/prod")) {
			t.Errorf("%s: the error contains the value or lacks the name: %v", c.stored, err)
		}
	}
	cloud, _ := recorded(t, fmt.Sprintf(`{"Parameter":{"Value":%q}}`, `{"ca":"a-ca"}`))
	if got, err := cloud.Parameter(t.Context(), "/cast/prod", "ca"); got != "a-ca" || err != nil {
		t.Errorf("a parameter: %q, %v", got, err)
	}
	cloud = cloudAt(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"__type":"ParameterNotFound"}`)
	})
	if _, err := cloud.Parameter(t.Context(), "/cast/prod", "ca"); !errors.Is(err, spot.ErrPermanent) ||
		errors.Is(err, spot.ErrNotFound) {
		t.Errorf("no parameter: %v", err)
	}
}
