package e2e

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/deploy"
)

// nodeClaims is a minimal CRD of Karpenter's NodeClaim.
const nodeClaims = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: nodeclaims.karpenter.sh
spec:
  group: karpenter.sh
  scope: Cluster
  names: {kind: NodeClaim, plural: nodeclaims, singular: nodeclaim}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

const nodeClaim = `
apiVersion: karpenter.sh/v1
kind: NodeClaim
metadata:
  name: %s
`

// karpenter installs the CRD and the optional RBAC once for all tests.
var karpenter sync.Once

func (w *realWorld) AddClaim(t *testing.T, node string) string {
	t.Helper()
	karpenter.Do(func() {
		for _, manifest := range [][]byte{[]byte(nodeClaims), deploy.KarpenterRBAC} {
			if err := w.cp.Apply(t.Context(), manifest); err != nil {
				t.Error(err)
			}
		}
	})
	w.made++
	name := fmt.Sprintf("%s-claim-%d", w.namespace, w.made)
	w.eventually("the API server to accept a NodeClaim",
		func() bool { return w.cp.Apply(t.Context(), fmt.Appendf(nil, nodeClaim, name)) == nil })
	if node == "" {
		return name
	}
	uid := w.claimUID(t, name)
	if uid == "" {
		t.Fatalf("the NodeClaim %s does not exist", name)
	}
	owner := metav1.OwnerReference{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: name, UID: uid}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": []metav1.OwnerReference{owner}}})
	must(t, err)
	if _, err := w.client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch,
		metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

func (w *realWorld) HasClaim(t *testing.T, name string) bool {
	t.Helper()
	return w.claimUID(t, name) != ""
}

// claimUID returns the UID of a NodeClaim, or "" if it does not exist.
func (w *realWorld) claimUID(t *testing.T, name string) types.UID {
	t.Helper()
	body, err := w.client.CoreV1().RESTClient().Get().AbsPath("/apis/karpenter.sh/v1/nodeclaims",
		name).DoRaw(t.Context())
	if apierrors.IsNotFound(err) {
		return ""
	}
	must(t, err)
	var claim metav1.PartialObjectMetadata
	must(t, json.Unmarshal(body, &claim))
	return claim.UID
}
