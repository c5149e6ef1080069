package identitymap

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
)

// answering returns a client of a server that sends one response after another, and then repeats the last one.
func answering(t *testing.T, answers ...string) (cluster dynamic.Interface, asked *[]string) {
	t.Helper()
	asked = new([]string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answer := answers[min(len(*asked), len(answers)-1)]
		code, err := strconv.Atoi(answer[:3])
		if err != nil {
			t.Error(err)
		}
		*asked = append(*asked, fmt.Sprintf("%s %s %s", r.Method, r.URL, body))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer[3:])
	}))
	t.Cleanup(srv.Close)
	cluster, err := NewClient(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return cluster, asked
}

// status returns an error response of the API server.
func status(code int, reason, message string) string {
	body, _ := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
		"message": message})
	return fmt.Sprintf("%d %s", code, body)
}

const awsAuth = `200 {"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"aws-auth","namespace":"kube-system","uid":"u","resourceVersion":"7"}}`

// TestChange: an object is created, updated or deleted, and again after a conflict; an error ends with what to do.
func TestChange(t *testing.T) {
	label := func(now object) (object, change.Plan, error) {
		next := awsAuthRef.empty()
		if now != nil {
			next = now.DeepCopy()
		}
		set(next, "v", "metadata", "labels", "l")
		return next, nil, nil
	}
	remove := func(object) (object, change.Plan, error) { return nil, nil, nil }
	const (
		create = `POST ...s?fieldManager=kops-spot&timeout=30s ..."labels":{"l":"v"}`
		update = `PUT ...s/aws-auth?fieldManager=kops-spot&timeout=30s ..."labels":{"l":"v"}..."resourceVersion":"7"`
		gone   = `DELETE ...s/aws-auth?timeout=30s ..."preconditions":{"uid":"u","resourceVersion":"7"},"propagationPolicy":"Background"`
	)
	missing, forbidden := status(404, "NotFound", "no"), status(403, "Forbidden", "no")
	for name, c := range map[string]struct {
		mutate  mutateFunc
		answers []string
		writes  []string // ... matches anything
		want    string   // end of the error
	}{
		"created":                   {label, []string{missing, awsAuth}, []string{create}, ""},
		"created by somebody else":  {label, []string{missing, status(409, "AlreadyExists", ""), awsAuth}, []string{create, update}, ""},
		"changed":                   {label, []string{awsAuth}, []string{update}, ""},
		"changed by somebody else":  {label, []string{awsAuth, status(409, "Conflict", ""), awsAuth}, []string{update, update}, ""},
		"deleted by somebody else":  {label, []string{awsAuth, missing, missing, awsAuth}, []string{update, create}, ""},
		"deleted":                   {remove, []string{awsAuth}, []string{gone}, ""},
		"nothing to delete":         {remove, []string{missing}, nil, ""},
		"deleted since it was read": {remove, []string{awsAuth, missing}, []string{gone}, ""},
		"forbidden":                 {label, []string{awsAuth, forbidden}, []string{update}, "no: log in as an administrator of the cluster"},
		"refused by a webhook":      {label, []string{awsAuth, status(403, "Forbidden", "admission webhook no")}, []string{update}, "admission webhook no"},
		"not readable":              {label, []string{forbidden}, nil, "reading ConfigMap kube-system/aws-auth: no: log in as an administrator of the cluster"},
		"no object":                 {label, []string{`200 {"data":"c2VjcmV0"}`}, nil, "is not a Kubernetes object: check the server in the kubeconfig"},
		"always a conflict": {label, append(slices.Repeat([]string{awsAuth, status(409, "Conflict", "try again")}, 9), awsAuth, status(409, "Conflict", "try again")),
			slices.Repeat([]string{update}, 10), "try again"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, asked := answering(t, c.answers...)
			err := awsAuthRef.change(t.Context(), cluster, c.mutate)
			if (err == nil) != (c.want == "") || err != nil && (!strings.HasSuffix(err.Error(), c.want) || strings.Contains(err.Error(), "c2VjcmV0")) {
				t.Errorf("got %v; want %q", err, c.want)
			}
			writes := slices.DeleteFunc(*asked, func(r string) bool { return strings.HasPrefix(r, "GET ") })
			if !slices.EqualFunc(writes, c.writes, func(is, want string) bool {
				return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, ".*")).MatchString(is)
			}) {
				t.Errorf("writes:\n%s\nwant\n%s", strings.Join(writes, "\n"), strings.Join(c.writes, "\n"))
			}
		})
	}
	cluster, err := NewClient(&rest.Config{Host: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := awsAuthRef.change(t.Context(), cluster, label); err == nil || !strings.HasSuffix(err.Error(), ": check that kubectl reaches the cluster, and run this again") {
		t.Errorf("without a server: %v", err)
	}
}

// TestNoSecretIsShown: the state has no token that could be printed by mistake, and a diff no values of a Secret.
func TestNoSecretIsShown(t *testing.T) {
	cluster, _ := answering(t, `200 {"kind":"Secret","apiVersion":"v1","metadata":{"name":"kops-spot-token"},"data":{"token":"c2VjcmV0"}}`)
	s := state{objects: map[ref]object{}}
	if err := s.read(t.Context(), cluster, tokenRef); err != nil || strings.Contains(fmt.Sprint(s.objects[tokenRef].Object), "c2VjcmV0") {
		t.Errorf("%v: the state has %v", err, s.objects[tokenRef])
	}
	now, next := tokenRef.empty(), tokenRef.empty()
	set(now, "c2VjcmV0", "data", "token")
	set(next, "b3RoZXI=", "data", "token")
	if diff := objectDiff(now, next); !slices.Equal(diff, []string{"  data.token changes"}) {
		t.Errorf("the diff is %q", diff)
	}
}
