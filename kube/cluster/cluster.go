// Package cluster reaches the API server of a Kubernetes cluster. It knows the
// kinds that nearside reads and writes and no others: client-go's clientset, which
// knows them all, would make the binary larger by ten megabytes.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config says which cluster, and as whom. The zero value is what kubectl would
// take: KUBECONFIG, ~/.kube/config, or inside a pod its service account.
type Config struct {
	Kubeconfig string // path of a file; empty: see above
	Context    string // of the file; empty: its current one
	UserAgent  string // how the API server's audit log names this client
}

const (
	// requestTimeout bounds one request, watches aside.
	requestTimeout = 15 * time.Second
	// perSecond and burst bound the requests: a check lists a page at a time and
	// asks each sidecar once.
	perSecond, burst = 50, 100
	// pageSize is how many objects one answer of a list holds at most.
	pageSize = 500
	// maxRaw bounds what is read of an answer that is no object.
	maxRaw = 4 << 20
)

// Client is a connection to a cluster. It is safe for concurrent use and needs no
// closing. Errors of the API server keep their kind for apierrors.IsNotFound and
// its like.
type Client struct {
	groups map[schema.GroupVersion]rest.Interface
	plain  rest.Interface // for paths of no group
	codec  runtime.ParameterCodec
}

// Connect reads the configuration. namespace is that of the context, or of this
// pod. It asks the API server for nothing yet.
func Connect(c Config) (_ *Client, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.Context})
	rc, err := loaded.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("cluster: no usable configuration: %w", err)
	}
	if namespace, _, err = loaded.Namespace(); err != nil {
		return nil, "", fmt.Errorf("cluster: namespace: %w", err)
	}
	rc.UserAgent = c.UserAgent
	client, err := New(rc)
	return client, namespace, err
}

// New returns a client of a cluster that rc describes. rc is not changed.
func New(rc *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	register(scheme)
	c := &Client{groups: map[schema.GroupVersion]rest.Interface{}, codec: runtime.NewParameterCodec(scheme)}
	base := rest.CopyConfig(rc)
	base.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	base.QPS, base.Burst = perSecond, burst
	if base.UserAgent == "" {
		base.UserAgent = "nearside"
	}
	client, err := rest.HTTPClientFor(base) // one pool of connections for all groups
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	for gv := range groups {
		g := rest.CopyConfig(base)
		g.GroupVersion, g.APIPath = &gv, "/apis"
		if gv.Group == "" {
			g.APIPath = "/api"
		}
		if c.groups[gv], err = rest.RESTClientForConfigAndClient(g, client); err != nil {
			return nil, fmt.Errorf("cluster: group %s: %w", gv, err)
		}
	}
	if c.plain, err = rest.UnversionedRESTClientForConfigAndClient(base, client); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return c, nil
}

// Version returns what the API server says of itself.
func (c *Client) Version(ctx context.Context) (version.Info, error) {
	var v version.Info
	data, err := raw(ctx, c.plain.Get().AbsPath("/version"))
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		return v, fmt.Errorf("cluster: ask for the version: %w", err)
	}
	return v, nil
}

// Get reads one object into obj.
func (c *Client) Get(ctx context.Context, obj runtime.Object, at types.NamespacedName) error {
	return c.do(ctx, http.MethodGet, obj, at, nil)
}

// Create writes a new object. The server's answer is not kept.
func (c *Client) Create(ctx context.Context, obj runtime.Object, namespace string) error {
	return c.do(ctx, http.MethodPost, obj, types.NamespacedName{Namespace: namespace}, obj)
}

// Update replaces an object. One that was changed since it was read gives a
// conflict.
func (c *Client) Update(ctx context.Context, obj runtime.Object, at types.NamespacedName) error {
	return c.do(ctx, http.MethodPut, obj, at, obj)
}

// Patch applies a JSON patch to an object of obj's kind and reads the result into
// obj.
func (c *Client) Patch(ctx context.Context, obj runtime.Object, at types.NamespacedName, patch []byte) error {
	return c.do(ctx, http.MethodPatch, obj, at, patch)
}

// do sends one request for an object and reads the answer into obj.
func (c *Client) do(ctx context.Context, method string, obj runtime.Object, at types.NamespacedName, body any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	k := kindOf(obj)
	var r *rest.Request
	if method == http.MethodPatch {
		r = c.groups[k.group].Patch(types.JSONPatchType)
	} else {
		r = c.groups[k.group].Verb(method)
	}
	r = r.NamespaceIfScoped(at.Namespace, k.namespaced).Resource(k.resource)
	if at.Name != "" {
		r = r.Name(at.Name)
	}
	if body != nil {
		r = r.Body(body)
	}
	if err := into(r.Do(ctx), obj); err != nil {
		return fmt.Errorf("cluster: %s %s %s: %w", method, k.resource, at.Name, err)
	}
	return nil
}

// into reads an answer into obj, of which nothing stays: a decoder would leave what
// the answer does not mention.
func into(r rest.Result, obj runtime.Object) error {
	fresh := reflect.New(reflect.TypeOf(obj).Elem())
	if err := r.Into(fresh.Interface().(runtime.Object)); err != nil {
		return err
	}
	reflect.ValueOf(obj).Elem().Set(fresh.Elem())
	return nil
}

// Page is a list of objects of one kind, such as *corev1.PodList.
type Page interface {
	runtime.Object
	metav1.ListInterface
}

// List reads all objects of a namespace, or of all namespaces when that is empty,
// page by page: it calls visit after each page was read into list.
func (c *Client) List(ctx context.Context, list Page, namespace string, o metav1.ListOptions, visit func()) error {
	k := kindOf(list)
	for o.Limit = pageSize; ; {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			return into(c.groups[k.group].Get().NamespaceIfScoped(namespace, k.namespaced).Resource(k.resource).
				VersionedParams(&o, c.codec).Do(ctx), list)
		}()
		if err != nil {
			return fmt.Errorf("cluster: list %s: %w", k.resource, err)
		}
		visit()
		if o.Continue = list.GetContinue(); o.Continue == "" {
			return nil
		}
	}
}

// Watch tells of changes of one object of obj's kind, beginning with how it is.
// The caller stops what it gets; the server ends it now and then.
func (c *Client) Watch(ctx context.Context, obj runtime.Object, at types.NamespacedName) (watch.Interface, error) {
	k := kindOf(obj)
	// With a name in the selector a right to this one object suffices.
	o := metav1.ListOptions{FieldSelector: "metadata.name=" + at.Name, Watch: true}
	w, err := c.groups[k.group].Get().NamespaceIfScoped(at.Namespace, k.namespaced).Resource(k.resource).
		VersionedParams(&o, c.codec).Watch(ctx)
	if err != nil {
		return nil, fmt.Errorf("cluster: watch %s %s: %w", k.resource, at.Name, err)
	}
	return w, nil
}

// Ask gets a path of what a pod serves on a port, through the API server. An
// answer of more than 4 MiB is an error.
func (c *Client) Ask(ctx context.Context, pod types.NamespacedName, port int, path string) ([]byte, error) {
	data, err := raw(ctx, c.groups[core].Get().Namespace(pod.Namespace).Resource("pods").
		Name(fmt.Sprintf("%s:%d", pod.Name, port)).SubResource("proxy").Suffix(path))
	if err != nil {
		return nil, fmt.Errorf("cluster: ask pod %s on port %d: %w", pod, port, err)
	}
	return data, nil
}

// raw returns the body of an answer, up to maxRaw.
func raw(ctx context.Context, r *rest.Request) (_ []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(body, maxRaw+1))
	if err == nil && len(data) > maxRaw {
		err = fmt.Errorf("the answer has more than %d bytes", maxRaw)
	}
	return data, err
}

// Right is something that a user may do. Empty fields but Verb and Resource stand
// for the core group, no subresource, and all namespaces or none.
type Right struct {
	Verb, Group, Resource, Subresource, Namespace string
}

// String is what a right is called in a message.
func (r Right) String() string {
	text := r.Verb + " " + r.Resource
	if r.Subresource != "" {
		text += "/" + r.Subresource
	}
	if r.Namespace != "" {
		text += " in " + r.Namespace
	}
	return text
}

// Can reports whether this client's user has a right.
func (c *Client) Can(ctx context.Context, r Right) (bool, error) {
	q := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace,
		},
	}}
	if err := c.do(ctx, http.MethodPost, q, types.NamespacedName{}, q); err != nil {
		return false, fmt.Errorf("cluster: ask for the right to %s: %w", r, err)
	}
	return q.Status.Allowed, nil
}

// Try has the API server admit a pod and not create it, and reads what it would
// have created into pod.
func (c *Client) Try(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r := c.groups[core].Post().Namespace(pod.Namespace).Resource("pods").Param("dryRun", metav1.DryRunAll).Body(pod)
	if err := into(r.Do(ctx), pod); err != nil {
		return fmt.Errorf("cluster: try a pod in %s: %w", pod.Namespace, err)
	}
	return nil
}
