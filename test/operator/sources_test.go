package operator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
)

// review returns the text of a plan's rows to review.
func review(p identitymap.Plan) (text string) {
	for _, c := range p.Changes {
		if c.Verb == change.Review {
			text += c.Why + "\n" + strings.Join(c.Diff, "\n") + "\n"
		}
	}
	return text
}

// appliedByOthers maps identities in an aws-auth that Terraform applies, and in one that is immutable.
func appliedByOthers(t *testing.T, texts map[string]string) {
	client := in("", "v1", "configmaps")
	terraform := func(texts map[string]string, force bool) error {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "aws-auth"}}}
		for key, text := range texts {
			try(unstructured.SetNestedField(o.Object, text, "data", key))
		}
		_, err := client.Apply(t.Context(), "aws-auth", o, metav1.ApplyOptions{FieldManager: "Terraform", Force: force})
		return err
	}
	setUp(t, "aws-auth", nil)
	try(terraform(texts, false))
	const add = "Terraform applies it and may undo the change: add this entry to mapRoles in its source\n+ - rolearn: "
	p := plan(t, mapping, false)
	if got := review(p); !strings.Contains(got, add) {
		t.Errorf("the plan does not name Terraform: %s", got)
	}
	apply(t, p)
	if p = plan(t, mapping, false); !p.Changes.Empty() || !strings.Contains(review(p), add) {
		t.Errorf("after the change: %v", p.Changes)
	}
	if err := terraform(texts, false); !apierrors.IsConflict(err) {
		t.Errorf("Terraform applies: %v; want a conflict", err)
	}
	try(terraform(data(t, "aws-auth"), false)) // with the entries
	if p = plan(t, mapping, false); !p.Changes.Empty() || strings.Contains(review(p), "Terraform") {
		t.Errorf("with the entries in the source: %v", p.Changes)
	}
	if p = plan(t, mapping, true); !strings.Contains(review(p), "remove this entry from mapUsers in its source\n- - userarn: ") {
		t.Errorf("the removal does not name Terraform: %v", p.Changes)
	}
	apply(t, p)

	setUp(t, "aws-auth", texts)
	live := must(client.Get(t.Context(), "aws-auth", metav1.GetOptions{}))
	live.Object["immutable"] = true
	must(client.Update(t.Context(), live, metav1.UpdateOptions{}))
	p = plan(t, mapping, false)
	if said := fmt.Sprint(p.Changes); !p.NeedsToken || !strings.Contains(said, "aws-auth has immutable: true") {
		t.Errorf("immutable: %s", said)
	}
	apply(t, p)
	apply(t, plan(t, mapping, true))
}

// brokenFile: the authenticator would not start with a line that somebody has added, so nothing restarts it.
func brokenFile(t *testing.T) {
	client := in("", "v1", "configmaps")
	live := must(client.Get(t.Context(), daemonName, metav1.GetOptions{}))
	text, _, err := unstructured.NestedString(live.Object, "data", "config.yaml")
	try(err)
	write := func(text string) {
		live = must(client.Get(t.Context(), daemonName, metav1.GetOptions{}))
		try(unstructured.SetNestedField(live.Object, text, "data", "config.yaml"))
		must(client.Update(t.Context(), live, metav1.UpdateOptions{}))
	}
	write(strings.Replace(text, "userARN:", "user_arn:", 1))
	line := fmt.Sprintf("line %d: in server.mapUsers: it has no userARN: misspelt as user_arn?",
		1+slices.IndexFunc(strings.Split(text, "\n"), func(l string) bool { return strings.Contains(l, "userARN:") }))
	p := plan(t, mapping, true)
	if got := review(p); !strings.Contains(got, line) {
		t.Errorf("the removal says %q, want %q", got, line)
	}
	for _, row := range rows(p) {
		if strings.Contains(row, daemonName) {
			t.Errorf("the removal has the row %q", row)
		}
	}
	other := mapping
	other.Identities = slices.Clone(other.Identities)
	other.Identities[0].Groups = []string{"others"}
	if _, err := other.Plan(t.Context(), cp().admin); err == nil || !strings.Contains(err.Error(), line) {
		t.Errorf("a change: %v, want %q", err, line)
	}
	write(text)
}
