package kubeadmin

import (
	"encoding/json"
	"strings"
)

// Ref names an object, or without a name all of a kind.
type Ref struct {
	APIVersion string // "v1", "apps/v1"
	Kind       string // "ConfigMap"
	Resource   string // as in the path: "configmaps"
	Namespace  string // empty for what is in none
	Name       string
}

// String is the object as people call it: ConfigMap kube-system/aws-auth.
func (r Ref) String() string { return strings.TrimSpace(r.Kind + " " + r.FullName()) }

// FullName is the name with the namespace before it.
func (r Ref) FullName() string {
	if r.Namespace == "" {
		return r.Name
	}
	return strings.TrimSuffix(r.Namespace+"/"+r.Name, "/")
}

func (r Ref) prefix() string {
	if strings.Contains(r.APIVersion, "/") {
		return "/apis/" + r.APIVersion
	}
	return "/api/" + r.APIVersion
}

// New is the least that an object of the name is made of.
func (r Ref) New() Object {
	metadata := map[string]any{"name": r.Name}
	if r.Namespace != "" {
		metadata["namespace"] = r.Namespace
	}
	return Object{"apiVersion": r.APIVersion, "kind": r.Kind, "metadata": metadata}
}

// Object is an object as its JSON says.
type Object map[string]any

// At is what stands at a path of keys; nil if nothing does.
func (o Object) At(path ...string) any {
	var at any = map[string]any(o)
	for _, key := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[key]
	}
	return at
}

// Text is the string at a path; empty if there is none.
func (o Object) Text(path ...string) string {
	s, _ := o.At(path...).(string)
	return s
}

// Number is the whole number at a path; zero if there is none.
func (o Object) Number(path ...string) int64 {
	n, _ := o.At(path...).(json.Number)
	i, _ := n.Int64()
	return i
}

// Texts is the map of strings at a path, such as labels.
func (o Object) Texts(path ...string) map[string]string {
	texts := map[string]string{}
	m, _ := o.At(path...).(map[string]any)
	for key, value := range m {
		if s, ok := value.(string); ok {
			texts[key] = s
		}
	}
	return texts
}

// List is the list at a path.
func (o Object) List(path ...string) []any {
	list, _ := o.At(path...).([]any)
	return list
}

// Set puts a value at a path, and makes the maps that lead there.
func (o Object) Set(value any, path ...string) {
	m := map[string]any(o)
	for _, key := range path[:len(path)-1] {
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	m[path[len(path)-1]] = value
}

// Unset removes what stands at a path, and the maps on the way that are empty then.
func (o Object) Unset(path ...string) { unset(o, path) }

func unset(m map[string]any, path []string) {
	if len(path) == 1 {
		delete(m, path[0])
		return
	}
	next, ok := m[path[0]].(map[string]any)
	if !ok {
		return
	}
	if unset(next, path[1:]); len(next) == 0 {
		delete(m, path[0])
	}
}

// Clone is a copy that shares nothing with the object.
func (o Object) Clone() Object {
	if o == nil {
		return nil
	}
	return clone(map[string]any(o)).(map[string]any)
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = clone(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = clone(value)
		}
		return list
	}
	return v
}
