package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Workload is what makes pods from a template: its own metadata, and its template's.
type Workload struct {
	Kind     string
	Own      metav1.ObjectMeta
	Template metav1.ObjectMeta
}

// WorkloadKinds are the kinds that Workloads can list, and where they are.
var WorkloadKinds = []struct {
	Kind     string
	Group    schema.GroupVersion
	Resource string
}{
	{"Deployment", schema.GroupVersion{Group: "apps", Version: "v1"}, "deployments"},
	{"StatefulSet", schema.GroupVersion{Group: "apps", Version: "v1"}, "statefulsets"},
	{"DaemonSet", schema.GroupVersion{Group: "apps", Version: "v1"}, "daemonsets"},
	{"Job", schema.GroupVersion{Group: "batch", Version: "v1"}, "jobs"},
	{"CronJob", schema.GroupVersion{Group: "batch", Version: "v1"}, "cronjobs"},
}

const (
	// workloadPage and maxPage bound a page of workloads, in objects and in bytes.
	workloadPage = 100
	maxPage      = 64 << 20
)

// template is the part of a pod template that matters here.
type template struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
}

// workloads is a page of a list. Only what is read here is decoded, whatever the
// kind.
type workloads struct {
	Metadata metav1.ListMeta `json:"metadata"`
	Items    []struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     struct {
			Template    template `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template template `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	} `json:"items"`
}

// Workloads calls visit with every workload of a namespace, or of all when that is
// empty, that is not made by another one.
func (c *Client) Workloads(ctx context.Context, namespace string, visit func(Workload)) error {
	for _, k := range WorkloadKinds {
		path := []string{"/apis", k.Group.Group, k.Group.Version}
		if namespace != "" {
			path = append(path, "namespaces", namespace)
		}
		next := ""
		for first := true; first || next != ""; first = false {
			page, err := c.page(ctx, append(path, k.Resource), next, "")
			if err != nil {
				return fmt.Errorf("cluster: list %s: %w", k.Resource, err)
			}
			for _, item := range page.Items {
				w := Workload{Kind: k.Kind, Own: item.Metadata, Template: item.Spec.Template.Metadata}
				if k.Kind == "CronJob" {
					w.Template = item.Spec.JobTemplate.Spec.Template.Metadata
				}
				if metav1.GetControllerOfNoCopy(&w.Own) == nil {
					visit(w)
				}
			}
			next = page.Metadata.Continue
		}
	}
	return nil
}

// Named returns the metadata of the objects with a label selector of a resource that
// is in no namespace. A resource that the API server does not have has none.
func (c *Client) Named(ctx context.Context, gv schema.GroupVersion, resource, selector string) ([]metav1.ObjectMeta, error) {
	path := []string{"/apis", gv.Group, gv.Version, resource}
	if gv.Group == "" {
		path = []string{"/api", gv.Version, resource}
	}
	var all []metav1.ObjectMeta
	next := ""
	for first := true; first || next != ""; first = false {
		page, err := c.page(ctx, path, next, selector)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cluster: list %s: %w", resource, err)
		}
		for _, item := range page.Items {
			all = append(all, item.Metadata)
		}
		next = page.Metadata.Continue
	}
	return all, nil
}

func (c *Client) page(ctx context.Context, path []string, next, selector string) (_ *workloads, err error) {
	r := c.plain.Get().AbsPath(path...).Param("limit", strconv.Itoa(workloadPage))
	if next != "" {
		r = r.Param("continue", next)
	}
	if selector != "" {
		r = r.Param("labelSelector", selector)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	var page workloads
	return &page, json.NewDecoder(io.LimitReader(body, maxPage)).Decode(&page)
}
