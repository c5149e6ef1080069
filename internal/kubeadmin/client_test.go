package kubeadmin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

var deploymentRef = Ref{APIVersion: "apps/v1", Kind: "Deployment", Resource: "deployments", Namespace: "kube-system", Name: "dns-controller"}

// against is a client of a server that answers all with a status and a body, and tells what it was asked last.
func against(t *testing.T, status int, body string) (*Client, *http.Request, *string) {
	t.Helper()
	asked, sent := &http.Request{}, new(string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*sent = string(b)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	c, err := New(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c, asked, sent
}

// TestWhatIsSent: each method asks what the API calls so, and says who writes.
func TestWhatIsSent(t *testing.T) {
	o := deploymentRef.New()
	o.Set("7", "metadata", "resourceVersion")
	o.Set("u", "metadata", "uid")
	const object, all = "/apis/apps/v1/namespaces/kube-system/deployments/dns-controller", "/apis/apps/v1/namespaces/kube-system/deployments"
	for name, c := range map[string]struct {
		do          func(*Client) error
		method, url string
		contentType string
		body        string
	}{
		"get":    {func(c *Client) error { _, err := c.Get(t.Context(), deploymentRef); return err }, "GET", object, "", ""},
		"list":   {func(c *Client) error { _, err := c.List(t.Context(), deploymentRef); return err }, "GET", all, "", ""},
		"create": {func(c *Client) error { _, err := c.Create(t.Context(), deploymentRef, o); return err }, "POST", all + "?fieldManager=kops-spot", "application/json", `"kind":"Deployment"`},
		"update": {func(c *Client) error { _, err := c.Update(t.Context(), deploymentRef, o); return err }, "PUT", object + "?fieldManager=kops-spot", "application/json", `"resourceVersion":"7"`},
		"delete": {func(c *Client) error { return c.Delete(t.Context(), deploymentRef, o) }, "DELETE", object, "application/json", `"preconditions":{"resourceVersion":"7","uid":"u"}`},
		"core, in no namespace": {func(c *Client) error {
			_, err := c.Get(t.Context(), Ref{APIVersion: "v1", Resource: "nodes", Name: "n"})
			return err
		}, "GET", "/api/v1/nodes/n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, asked, sent := against(t, http.StatusOK, `{"items":[]}`)
			if err := c.do(client); err != nil {
				t.Fatal(err)
			}
			if asked.Method != c.method || asked.URL.String() != c.url || asked.Header.Get("Content-Type") != c.contentType || !strings.Contains(*sent, c.body) {
				t.Errorf("it asked %s %s (%s): %s", asked.Method, asked.URL, asked.Header.Get("Content-Type"), *sent)
			}
		})
	}
}

// TestWhatAnAnswerMeans to who has to read again, to who made sure that nothing is there, and to a person.
func TestWhatAnAnswerMeans(t *testing.T) {
	for name, c := range map[string]struct {
		code   int
		reason string
		is     error
		want   string
	}{
		"not there":           {404, "NotFound", ErrNotFound, "updating Deployment kube-system/dns-controller: there is none"},
		"a kind that is none": {404, "", ErrNotFound, "there is none"},
		"changed":             {409, "Conflict", ErrChanged, "somebody has changed it"},
		"there already":       {409, "AlreadyExists", ErrChanged, "somebody has changed it"},
		"forbidden":           {403, "Forbidden", nil, "log in as an administrator of the cluster: cannot do that"},
		"not valid":           {422, "Invalid", nil, "updating Deployment kube-system/dns-controller: cannot do that"},
	} {
		body, err := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": c.reason, "code": c.code, "message": "cannot do that"})
		if err != nil {
			t.Fatal(err)
		}
		client, _, _ := against(t, c.code, string(body))
		_, err = client.Update(t.Context(), deploymentRef, deploymentRef.New())
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range []error{ErrNotFound, ErrChanged} {
			if other != c.is && errors.Is(err, other) {
				t.Errorf("%s: it is %v too", name, other)
			}
		}
	}
}

// TestNumbersStayAsTheyAre on the way there and back: a float would round what is large.
func TestNumbersStayAsTheyAre(t *testing.T) {
	client, _, sent := against(t, http.StatusOK, `{"kind":"Deployment","metadata":{"generation":9007199254740993}}`)
	o, err := client.Get(t.Context(), deploymentRef)
	if err != nil || o.Number("metadata", "generation") != 9007199254740993 {
		t.Fatal(err, o)
	}
	if _, err := client.Update(t.Context(), deploymentRef, o); err != nil || !strings.Contains(*sent, "9007199254740993") {
		t.Errorf("%v: it sent %s", err, *sent)
	}
}

// TestObject: what is not there is nothing, and what is put there or removed takes the maps on the way with it.
func TestObject(t *testing.T) {
	var none Object
	if none.Text("a", "b") != "" || none.Number("a") != 0 || none.List("a") != nil || len(none.Texts("a")) != 0 || none.Clone() != nil {
		t.Error("what is not there is something")
	}
	o := Object{"a": "x", "n": map[string]any{"list": []any{"1"}, "other": "y"}}
	copied := o.Clone()
	o.Set("z", "b", "c")
	o.List("n", "list")[0] = "2"
	if copied.Text("b", "c") != "" || copied.List("n", "list")[0] != "1" {
		t.Error("a clone shares something with what it is of")
	}
	o.Unset("b", "c")
	o.Unset("n", "list")
	o.Unset("not", "there")
	if _, there := o["b"]; there || o.Text("n", "other") != "y" || len(o) != 2 {
		t.Errorf("it is left as %v", o)
	}
}
