package testenv

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// BuildBootstrap builds the Lambda function's bootstrap with the Makefile, for this machine, and returns its path.
func BuildBootstrap(ctx context.Context) (string, error) {
	bin, err := makeInRoot(ctx, "bootstrap")
	return filepath.Join(bin, "bootstrap"), err
}

// BuildPrograms also builds the command line and returns the directory of both.
func BuildPrograms(ctx context.Context) (string, error) { return makeInRoot(ctx, "build") }

func makeInRoot(ctx context.Context, target string) (bin string, err error) {
	test, err := moduleDir()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(test)
	// From a directory in the same file system, go build replaces a program at once: another process may be starting it.
	temp := filepath.Join(test, "bin")
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return "", err
	}
	build := buildCommand(ctx, "make", "-C", root, target)
	build.Env = append(os.Environ(), "GOTMPDIR="+temp)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("running make %s: %w\n%s", target, err, out)
	}
	return filepath.Join(root, "bin"), nil
}

// FunctionEnv returns the environment of a function that authenticates with the token in a file, in mode act. aws is the
// environment of programs that use the fake AWS, as its Env returns it.
func (cp *ControlPlane) FunctionEnv(cluster, tokenFile string, aws []string) map[string]string {
	env := map[string]string{
		"KOPS_SPOT_CLUSTER": cluster,
		"KOPS_SPOT_MODE":    "act",
		"KOPS_SPOT_LOGIN":   "file:" + tokenFile,
		"KOPS_SPOT_SERVER":  cp.admin.Host,
		"KOPS_SPOT_CA":      base64.StdEncoding.EncodeToString(cp.admin.CAData),
	}
	for _, kv := range aws {
		if name, value, _ := strings.Cut(kv, "="); !strings.HasSuffix(name, "_REGION") { // set by Lambda
			env[name] = value
		}
	}
	return env
}

// Apply creates or updates the objects of a manifest with YAML documents.
func (cp *ControlPlane) Apply(ctx context.Context, manifest []byte) error {
	d, err := discovery.NewDiscoveryClientForConfig(cp.AdminConfig())
	if err != nil {
		return fmt.Errorf("applying a manifest: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
	client, err := dynamic.NewForConfig(cp.AdminConfig())
	if err != nil {
		return fmt.Errorf("applying a manifest: %w", err)
	}
	for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var o unstructured.Unstructured
		switch err := docs.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading a manifest: %w", err)
		case o.Object == nil:
			continue
		}
		gvk := o.GroupVersionKind()
		mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return fmt.Errorf("applying %s %s: %w", gvk.Kind, o.GetName(), err)
		}
		_, err = client.Resource(mapping.Resource).Namespace(o.GetNamespace()).
			Apply(ctx, o.GetName(), &o, metav1.ApplyOptions{FieldManager: "testenv", Force: true})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("applying %s %s: %w", gvk.Kind, o.GetName(), err)
		}
	}
}
