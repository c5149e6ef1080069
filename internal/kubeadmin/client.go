// Package kubeadmin is a Kubernetes cluster as its administrator sees it: objects of any kind, as JSON, to be read, made,
// changed and deleted. The function needs none of it; internal/kube is its cluster.
package kubeadmin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	// Manager is what the API server notes as the writer of our fields.
	Manager = "kops-spot"

	// limit bounds a request: a write may have to wait for admission webhooks, which have up to 10 s each.
	limit = 30 * time.Second
)

var (
	// ErrNotFound means that the object is not there, or that the cluster does not know its kind.
	ErrNotFound = errors.New("there is none")

	// ErrChanged means that somebody else has changed, made or deleted the object since it was read: it is worth reading
	// again.
	ErrChanged = errors.New("somebody has changed it since it was read")
)

// Client speaks to a cluster's API server.
type Client struct{ client rest.Interface }

// New makes a Client of a log-in. It makes no request.
func New(login *rest.Config) (*Client, error) {
	cfg := rest.CopyConfig(login)
	known := runtime.NewScheme()
	metav1.AddToGroupVersion(known, schema.GroupVersion{Version: "v1"}) // for the errors, which come as objects too
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.QPS = -1 // a run makes a few dozen requests in all
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", cfg.Host, err)
	}
	return &Client{client: client}, nil
}

// Get reads an object.
func (c *Client) Get(ctx context.Context, r Ref) (Object, error) {
	return send(ctx, c.at(c.client.Get(), r).Name(r.Name), "reading", r)
}

// List reads all objects of the kind in the namespace of r, or those in no namespace. They come without their kind.
func (c *Client) List(ctx context.Context, r Ref) ([]Object, error) {
	answer, err := send(ctx, c.at(c.client.Get(), r), "listing", r)
	if err != nil {
		return nil, err
	}
	items, _ := answer["items"].([]any)
	all := make([]Object, 0, len(items))
	for _, item := range items {
		if o, ok := item.(map[string]any); ok {
			all = append(all, o)
		}
	}
	return all, nil
}

// Version is the API server's, such as v1.31.2.
func (c *Client) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var told struct{ GitVersion string }
	body, err := c.client.Get().AbsPath("/version").Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(body, &told)
	}
	if err != nil {
		return "", fmt.Errorf("asking the API server for its version: %w", err)
	}
	return told.GitVersion, nil
}

// Create makes an object. That there is one already is ErrChanged.
func (c *Client) Create(ctx context.Context, r Ref, o Object) (Object, error) {
	return write(ctx, c.at(c.client.Post(), r).SetHeader("Content-Type", runtime.ContentTypeJSON), "creating", r, o)
}

// Update writes an object as it was read and then changed; its resourceVersion has the server refuse that if somebody
// else has written it since.
func (c *Client) Update(ctx context.Context, r Ref, o Object) (Object, error) {
	req := c.at(c.client.Put(), r).Name(r.Name).SetHeader("Content-Type", runtime.ContentTypeJSON)
	return write(ctx, req, "updating", r, o)
}

// Delete deletes the object that was read as o, and no other that has its name by now. What depends on it goes too.
func (c *Client) Delete(ctx context.Context, r Ref, o Object) error {
	pre := map[string]any{"uid": o.Text("metadata", "uid"), "resourceVersion": o.Text("metadata", "resourceVersion")}
	options := Object{"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": pre, "propagationPolicy": "Background"}
	body, err := json.Marshal(options)
	if err != nil {
		return fmt.Errorf("deleting %s: %w", r, err)
	}
	req := c.at(c.client.Delete(), r).Name(r.Name).SetHeader("Content-Type", runtime.ContentTypeJSON)
	_, err = send(ctx, req.Body(body), "deleting", r)
	return err
}

// at is a request about the objects of a kind.
func (c *Client) at(req *rest.Request, r Ref) *rest.Request {
	req = req.AbsPath(r.prefix()).Resource(r.Resource)
	return req.NamespaceIfScoped(r.Namespace, r.Namespace != "")
}

func write(ctx context.Context, req *rest.Request, doing string, r Ref, o Object) (Object, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", doing, r, err)
	}
	return send(ctx, req.Param("fieldManager", Manager).Body(body), doing, r)
}

func send(ctx context.Context, req *rest.Request, doing string, r Ref) (Object, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := req.Do(ctx)
	if err := result.Error(); err != nil { // which knows what the server says of it; the error beside the bytes does not
		return nil, translate(err, doing, r)
	}
	body, err := result.Raw()
	if err != nil {
		return nil, translate(err, doing, r)
	}
	// Numbers stay as they are written: what is read and written again must not become another number.
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var o Object
	if err := decoder.Decode(&o); err != nil {
		return nil, fmt.Errorf("%s %s: reading the answer: %w", doing, r, err)
	}
	return o, nil
}

// translate says what an error means to who branches on it, and what to do about it.
func translate(err error, doing string, r Ref) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s %s: %w", doing, r, ErrNotFound)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s %s: %w: %w", doing, r, ErrChanged, err)
	case apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "admission webhook"):
		return fmt.Errorf("%s %s: log in as an administrator of the cluster: %w", doing, r, err)
	}
	return fmt.Errorf("%s %s: %w", doing, r, err)
}
