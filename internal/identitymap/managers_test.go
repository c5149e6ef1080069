package identitymap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/change"
)

const (
	apply  = metav1.ManagedFieldsOperationApply
	update = metav1.ManagedFieldsOperationUpdate
)

// owns adds a field manager of a key of a ConfigMap.
func owns(o object, manager string, operation metav1.ManagedFieldsOperationType, key string) object {
	fields := metav1.NewFieldsV1(`{"f:data":{"f:` + key + `":{}}}`)
	o.SetManagedFields(append(o.GetManagedFields(), metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, FieldsV1: fields}))
	return o
}

func TestManagerOf(t *testing.T) {
	for name, c := range map[string]struct {
		managers            map[string]metav1.ManagedFieldsOperationType
		labels, annotations map[string]string
		want                string
	}{
		"nobody":                        {nil, nil, nil, ""},
		"we":                            {map[string]metav1.ManagedFieldsOperationType{"kops-spot": apply}, map[string]string{labelManagedBy: "kops-spot"}, nil, ""},
		"by hand":                       {map[string]metav1.ManagedFieldsOperationType{"kubectl-edit": update, "kubectl-create": update}, nil, nil, ""},
		"Terraform":                     {map[string]metav1.ManagedFieldsOperationType{"Terraform": apply, "kops-spot": update}, nil, nil, "Terraform"},
		"Terraform without apply":       {map[string]metav1.ManagedFieldsOperationType{"HashiCorp": update}, nil, nil, "Terraform"},
		"Argo CD":                       {map[string]metav1.ManagedFieldsOperationType{"argocd-controller": apply}, nil, nil, "Argo CD"},
		"Argo CD with a Helm chart":     {map[string]metav1.ManagedFieldsOperationType{"argocd-controller": update}, map[string]string{labelManagedBy: "Helm"}, nil, "Argo CD"},
		"Argo CD by its annotation":     {nil, nil, map[string]string{"argocd.argoproj.io/tracking-id": "x", lastApplied: "{}"}, "Argo CD"},
		"Flux":                          {map[string]metav1.ManagedFieldsOperationType{"kustomize-controller": apply}, nil, nil, "Flux"},
		"Flux by its label":             {nil, map[string]string{"helm.toolkit.fluxcd.io/name": "x", labelManagedBy: "Helm"}, nil, "Flux"},
		"Helm":                          {map[string]metav1.ManagedFieldsOperationType{"helm": update}, map[string]string{labelManagedBy: "Helm"}, nil, "Helm"},
		"kOps":                          {map[string]metav1.ManagedFieldsOperationType{"kops": apply}, nil, nil, "kOps"},
		"kOps by its label":             {nil, map[string]string{"addon.kops.k8s.io/name": "authentication.aws"}, nil, "kOps"},
		"kubectl apply":                 {nil, nil, map[string]string{lastApplied: "{}"}, "kubectl apply"},
		"kubectl apply --server-side":   {map[string]metav1.ManagedFieldsOperationType{"kubectl": apply}, nil, nil, "kubectl apply"},
		"another one that applies":      {map[string]metav1.ManagedFieldsOperationType{"platform": apply}, nil, nil, "the field manager platform"},
		"another one by its label":      {nil, map[string]string{labelManagedBy: "platform"}, nil, "platform"},
		"our manifest, applied by Argo": {map[string]metav1.ManagedFieldsOperationType{"argocd-controller": apply}, map[string]string{labelManagedBy: "kops-spot"}, nil, "Argo CD"},
	} {
		t.Run(name, func(t *testing.T) {
			o := awsAuthRef.empty()
			o.SetLabels(c.labels)
			o.SetAnnotations(c.annotations)
			for manager, operation := range c.managers {
				owns(o, manager, operation, "mapRoles")
			}
			if got := managerOf(o); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := managerOf(nil); got != "" {
		t.Errorf("an object that does not exist: %q", got)
	}
}

// TestSources: a plan says what to change in the source of what others apply, until that is done.
func TestSources(t *testing.T) {
	reviews := func(p Plan) (diff string) {
		for _, c := range p.Changes {
			if c.Verb == change.Review {
				diff += c.Why + "\n" + strings.Join(c.Diff, "\n") + "\n"
			}
		}
		return diff
	}
	only := Mapping{Cluster: "prod.example.com", Identities: bothOurs[:1]}
	const add = "Terraform applies it and may undo the change: add this entry to mapRoles in its source\n" +
		"+ - rolearn: arn:aws:iam::111122223333:role/Ours\n+   username: kops-spot\n+   groups:\n+     - cast:spot-handler\n"
	s := testCluster{daemonSet: daemonSet("--backend-mode=EKSConfigMap"), awsAuth: map[string]string{"mapRoles": theirRoles}}.state()
	owns(s.objects[awsAuthRef], "Terraform", apply, "mapRoles")
	p, err := only.decide(s)
	if got := reviews(p); err != nil || got != add {
		t.Errorf("%v: %s", err, got)
	}
	done := after(t, s, p)
	done.objects[awsAuthRef].SetManagedFields(nil)
	owns(done.objects[awsAuthRef], "Terraform", apply, "mapUsers")
	owns(done.objects[awsAuthRef], "kops-spot", update, "mapRoles")
	p, err = only.decide(done)
	if got := reviews(p); err != nil || got != add || !p.Changes.Empty() {
		t.Errorf("after the change: %v: %s", err, got)
	}
	owns(done.objects[awsAuthRef], "Terraform", apply, "mapRoles")
	p, err = only.decide(done)
	if got := reviews(p); err != nil || got != "" {
		t.Errorf("with the entry in the source: %v: %s", err, got)
	}
	p, err = only.decideRemoval(done)
	if got := reviews(p); err != nil || !strings.Contains(got,
		"remove this entry from mapRoles in its source\n- - rolearn: arn:aws:iam::111122223333:role/Ours\n") {
		t.Errorf("removal: %v: %s", err, got)
	}
	done.objects[awsAuthRef].SetAnnotations(map[string]string{lastApplied: "{}"})
	if got := reviews(must(only.decide(done))); !strings.Contains(got, "add this entry") {
		t.Errorf("the source has been applied without the entry: %s", got)
	}
	done.objects[awsAuthRef].SetAnnotations(map[string]string{lastApplied: `{"data":{"mapRoles":"- rolearn: arn:aws:iam::111122223333:role/Ours"}}`})
	if got := reviews(must(only.decide(done))); got != "" {
		t.Errorf("the source has been applied with the entry: %s", got)
	}
}

// TestUndo: the plan names who applies the other objects that it changes.
func TestUndo(t *testing.T) {
	ds := daemonSet(configFlag)
	ds.SetLabels(map[string]string{"addon.kops.k8s.io/name": "authentication.aws"})
	s := testCluster{daemonSet: ds, file: "clusterID: c\n"}.state()
	role := allManifests[slices.IndexFunc(allManifests, func(o object) bool { return o.GetKind() == "ClusterRole" && o.GetName() == "kops-spot" })]
	theirs := role.DeepCopy()
	set(theirs, []any{}, "rules")
	s.objects[refOf(role)] = owns(theirs, "argocd-controller", apply, "x")
	got := fmt.Sprint(must(testMapping.decide(s)).Changes)
	for _, want := range []string{"Argo CD applies it and may undo the change", "kOps applies it and may undo the change"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("not once %q: %s", want, got)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
