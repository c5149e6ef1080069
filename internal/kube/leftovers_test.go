package kube

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
)

// TestFollowVolumes checks that only the node's attachments are seen, and only their changes.
func TestFollowVolumes(t *testing.T) {
	attachment := func(name, node string) string {
		return fmt.Sprintf(`{"kind":"VolumeAttachment","apiVersion":"storage.k8s.io/v1","metadata":{"name":%q},"spec":{"nodeName":%q}}`,
			name, node)
	}
	var asked []string
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		asked = append(asked, fmt.Sprint(r.URL.Path, " ", q.Get("resourceVersion"), " ", q.Get("watch")))
		w.Header().Set("Content-Type", "application/json")
		if q.Get("watch") == "" {
			_, _ = fmt.Fprintf(w, `{"kind":"VolumeAttachmentList","apiVersion":"storage.k8s.io/v1","metadata":{"resourceVersion":"7"},
				"items":[%s,%s,%s]}`, attachment("b", "here"), attachment("x", "there"), attachment("a", "here"))
			return
		}
		for _, e := range []struct{ kind, name, node string }{{"MODIFIED", "a", "here"}, {"DELETED", "a", "here"},
			{"DELETED", "x", "there"}, {"ADDED", "c", "here"}, {"DELETED", "b", "here"}} {
			_, _ = fmt.Fprintf(w, `{"type":%q,"object":%s}`, e.kind, attachment(e.name, e.node))
		}
	}))
	var seen []string
	err := k.FollowVolumes(t.Context(), "here", func(attached []string) { seen = append(seen, strings.Join(attached, "+")) })
	if want := []string{"a+b", "b", "b+c", "c"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("saw %q, %v; want %q", seen, err, want)
	}
	const path = "/apis/storage.k8s.io/v1/volumeattachments "
	if want := []string{path + "0 ", path + "7 true"}; !slices.Equal(asked, want) {
		t.Errorf("requested %q, want %q", asked, want)
	}
}

// TestCordonedNodesPagination: the server selects the nodes, page by page.
func TestCordonedNodesPagination(t *testing.T) {
	var asked []string
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		asked = append(asked, q.Get("labelSelector")+" "+q.Get("limit")+" "+q.Get("resourceVersion")+" "+q.Get("continue"))
		next, name := `"continue":"more"`, "one"
		if q.Get("continue") == "more" {
			next, name = `"resourceVersion":"7"`, "two"
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{%s},"items":[{"metadata":{"name":%q}}]}`, next, name)
	}))
	nodes, err := k.CordonedNodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].Name != "one" || nodes[1].Name != "two" {
		t.Errorf("got %+v, %v", nodes, err)
	}
	const selector = "autoscaling.cast.ai/draining=spot-interruption 500  " // and no version: the current state
	if want := []string{selector, selector + "more"}; !slices.Equal(asked, want) {
		t.Errorf("requested %q, want %q", asked, want)
	}
}

func TestDeleteNodeResponses(t *testing.T) {
	for _, c := range []struct {
		answer metav1.Status
		is     error
	}{
		{metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
			Code: 200}, nil},
		{status(404, metav1.StatusReasonNotFound, `nodes "n" not found`, &metav1.StatusDetails{Name: "n"}),
			spot.ErrNotFound},
		{status(409, metav1.StatusReasonConflict, "the UID in the precondition does not match", nil), spot.ErrChanged},
		{status(403, metav1.StatusReasonForbidden, `User "x" cannot delete nodes`, nil), spot.ErrPermanent},
	} {
		err := stub(t, c.answer).DeleteNode(t.Context(), spot.Node{Name: "n", UID: "u"})
		if !errors.Is(err, c.is) || err != nil && !strings.HasPrefix(err.Error(), "deleting node n: ") {
			t.Errorf("%d: got %v, want %v", c.answer.Code, err, c.is)
		}
	}
}

// TestDeleteNodeClaim: the claim is deleted in the version that the server supports. A missing claim and a missing CRD
// differ.
func TestDeleteNodeClaim(t *testing.T) {
	gone := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"nodeclaims.karpenter.sh \"c\" not found","details":{"name":"c","group":"karpenter.sh","kind":"nodeclaims"}}`
	refused := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"nodeclaims.karpenter.sh \"c\" is forbidden"}`
	const object = `{"kind":"NodeClaim","apiVersion":"karpenter.sh/v1","metadata":{"name":"c","finalizers":["karpenter.sh/termination"]}}`
	for _, c := range []struct {
		name    string
		served  string // the version
		code    int
		answer  string
		is      error
		says    string
		request string
	}{
		{name: "deleted", served: "v1", code: 200, answer: object, request: "v1"},
		{name: "gone", served: "v1", code: 404, answer: gone, is: spot.ErrNotFound, request: "v1"},
		{name: "deleted in the older version", served: "v1beta1", code: 200, answer: object, request: "v1 v1beta1"},
		{name: "gone in the older version", served: "v1beta1", code: 404, answer: gone, is: spot.ErrNotFound,
			request: "v1 v1beta1"},
		{name: "no such kind", is: spot.ErrNotFound, request: "v1 v1beta1"},
		{name: "forbidden", served: "v1", code: 403, answer: refused, is: spot.ErrPermanent,
			says: "apply deploy/rbac-karpenter.yaml", request: "v1"},
		{name: "broken", served: "v1", code: 500,
			answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"message":"etcd"}`, says: "etcd",
			request: "v1"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			var versions []string
			k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				parts := strings.Split(r.URL.Path, "/") // /apis/karpenter.sh/<version>/nodeclaims/c
				if r.Method != http.MethodDelete || len(parts) != 6 || parts[2] != "karpenter.sh" ||
					parts[4]+"/"+parts[5] != "nodeclaims/c" {
					t.Errorf("requested %s %s", r.Method, r.URL.Path)
				}
				versions = append(versions, parts[3])
				if parts[3] != c.served {
					http.NotFound(w, r) // plain text, as the API server does
					return
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.answer)
			}))
			err := k.DeleteNodeClaim(t.Context(), "c")
			if (err == nil) != (c.code == 200) || c.is != nil && !errors.Is(err, c.is) || err != nil &&
				!strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if got := strings.Join(versions, " "); got != c.request {
				t.Errorf("requested version %s, want %s", got, c.request)
			}
		})
	}
}
