package onboard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/castai/kops-spot/internal/kubeadmin"
)

const kubeSystem = "kube-system"

// The objects by which a cluster knows who is who.
var (
	authenticatorRef = kubeadmin.Ref{APIVersion: "apps/v1", Kind: "DaemonSet", Resource: "daemonsets", Namespace: kubeSystem, Name: "aws-iam-authenticator"}
	awsAuthRef       = configMapRef("aws-auth")
	tokenRef         = kubeadmin.Ref{APIVersion: "v1", Kind: "Secret", Resource: "secrets", Namespace: kubeSystem, Name: "kops-spot-token"}
	mappingsRef      = kubeadmin.Ref{APIVersion: "iamauthenticator.k8s.aws/v1alpha1", Kind: "IAMIdentityMapping", Resource: "iamidentitymappings"}
)

// What kOps puts into every cluster of its own, and labels with its version.
var versionedByKops = []kubeadmin.Ref{
	{APIVersion: "apps/v1", Kind: "DaemonSet", Resource: "daemonsets", Namespace: kubeSystem, Name: "kops-controller"},
	{APIVersion: "apps/v1", Kind: "Deployment", Resource: "deployments", Namespace: kubeSystem, Name: "dns-controller"},
}

func configMapRef(name string) kubeadmin.Ref {
	return kubeadmin.Ref{APIVersion: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: kubeSystem, Name: name}
}

// configRef is the ConfigMap in which the authenticator's file is.
func configRef(daemonSet kubeadmin.Object) kubeadmin.Ref {
	for _, v := range daemonSet.List("spec", "template", "spec", "volumes") {
		if name := kubeadmin.Object(asMap(v)).Text("configMap", "name"); name != "" {
			return configMapRef(name)
		}
	}
	return configMapRef(authenticatorRef.Name)
}

// MappingState is what a cluster has of what decides who is who in it.
type MappingState struct {
	// KopsVersion is of the kOps that has last updated the cluster; empty if it does not say.
	KopsVersion string

	objects      map[kubeadmin.Ref]kubeadmin.Object // nil for what is not there
	mappings     []kubeadmin.Object                 // of kind IAMIdentityMapping
	knowsMapping bool                               // the cluster has that kind
}

// Inspect reads what decides who is who in the cluster. It changes nothing.
func (m Mapping) Inspect(ctx context.Context, cluster *kubeadmin.Client) (MappingState, error) {
	s := MappingState{objects: map[kubeadmin.Ref]kubeadmin.Object{}}
	rules, err := manifestObjects()
	if err != nil {
		return s, err
	}
	for ref := range rules {
		if err := s.read(ctx, cluster, ref); err != nil {
			return s, err
		}
	}
	for _, ref := range []kubeadmin.Ref{authenticatorRef, awsAuthRef, tokenRef, configMapRef(authenticatorRef.Name)} {
		if err := s.read(ctx, cluster, ref); err != nil {
			return s, err
		}
	}
	if err := s.read(ctx, cluster, configRef(s.objects[authenticatorRef])); err != nil {
		return s, err
	}
	for _, ref := range versionedByKops {
		if err := s.read(ctx, cluster, ref); err != nil {
			return s, err
		}
		if version := s.objects[ref].Text("metadata", "labels", "version"); s.KopsVersion == "" {
			s.KopsVersion = version
		}
	}
	s.mappings, err = cluster.List(ctx, mappingsRef)
	if s.knowsMapping = err == nil; errors.Is(err, kubeadmin.ErrNotFound) {
		err = nil
	}
	return s, err
}

func (s *MappingState) read(ctx context.Context, cluster *kubeadmin.Client, ref kubeadmin.Ref) error {
	if _, known := s.objects[ref]; known {
		return nil
	}
	o, err := cluster.Get(ctx, ref)
	if err != nil && !errors.Is(err, kubeadmin.ErrNotFound) {
		return err
	}
	if ref == tokenRef {
		o.Unset("data") // what nobody holds cannot be shown by mistake
	}
	s.objects[ref] = o
	return nil
}

// authenticator is how the cluster's authenticator is run; false if it has none.
func (s MappingState) authenticator() (authenticator, bool, error) {
	daemonSet := s.objects[authenticatorRef]
	if daemonSet == nil {
		return authenticator{}, false, nil
	}
	ref, config := configRef(daemonSet), any(nil)
	if len(flagsOf(daemonSet)["config"]) > 0 { // kOps mounts it only where the mode MountedFile is among them
		var err error
		if _, config, err = readYAML(s.objects[ref].Text("data", fileKey)); err != nil {
			return authenticator{}, false, fmt.Errorf("reading %s of %s: nothing was changed: %w", fileKey, ref, err)
		}
	}
	return authenticatorOf(daemonSet, config), true, nil
}

// mappingOf are the objects that map the ARN.
func (s MappingState) mappingOf(arn string) (all []kubeadmin.Object) {
	for _, o := range s.mappings {
		if strings.EqualFold(o.Text("spec", "arn"), arn) {
			all = append(all, o)
		}
	}
	return all
}

// objectOf is an object as it was read.
func (s MappingState) objectOf(ref kubeadmin.Ref) kubeadmin.Object {
	if ref.Kind != mappingsRef.Kind {
		return s.objects[ref]
	}
	for _, o := range s.mappings {
		if o.Text("metadata", "name") == ref.Name {
			return o
		}
	}
	return nil
}
