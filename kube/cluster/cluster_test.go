package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/cluster/clustertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = types.NamespacedName{Namespace: "a", Name: "s"}

const path = "/api/v1/namespaces/a/secrets/s"

func secret(value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Data: map[string][]byte{value: nil}}
}

func client(t *testing.T, s *clustertest.Server) *cluster.Client {
	c, err := s.Client()
	require.NoError(t, err)
	return c
}

func TestObjects(t *testing.T) {
	s := new(clustertest.Server)
	c := client(t, s)
	ctx := t.Context()
	got := new(corev1.Secret)
	require.True(t, apierrors.IsNotFound(c.Get(ctx, got, at)))
	require.NoError(t, c.Create(ctx, secret("one"), "a"))
	require.True(t, apierrors.IsAlreadyExists(c.Create(ctx, secret("two"), "a")))
	require.NoError(t, c.Get(ctx, got, at))
	stale := got.DeepCopy()
	got.Data = map[string][]byte{"two": nil}
	require.NoError(t, c.Update(ctx, got, at))
	require.True(t, apierrors.IsConflict(c.Update(ctx, stale, at)))
	require.NoError(t, c.Get(ctx, stale, at))
	require.NotContains(t, stale.Data, "one", "nothing of what an object was before stays in it")
	require.NoError(t, c.Patch(ctx, got, at, []byte(`[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`)))
	require.Equal(t, "y", got.Labels["x"])
	require.True(t, apierrors.IsConflict(c.Patch(ctx, got, at, []byte(`[{"op":"add","path":"/metadata/resourceVersion","value":"1"}]`))))
}

func TestWatch(t *testing.T) {
	s := new(clustertest.Server)
	c := client(t, s)
	require.NoError(t, s.Put(path, secret("one")))
	w, err := c.Watch(t.Context(), new(corev1.Secret), at)
	require.NoError(t, err)
	defer w.Stop()
	event := <-w.ResultChan()
	require.Equal(t, watch.Added, event.Type)
	require.Contains(t, event.Object.(*corev1.Secret).Data, "one")
	require.NoError(t, s.Put("/api/v1/namespaces/a/secrets/other", secret("no")))
	s.Remove(path)
	require.Equal(t, watch.Deleted, (<-w.ResultChan()).Type)
	s.Break()
	_, open := <-w.ResultChan()
	require.False(t, open)
}

// Lists come page by page, and no page holds anything of another one.
func TestListPages(t *testing.T) {
	s := &clustertest.Server{Page: 2}
	c := client(t, s)
	for i := range 5 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: "a", Labels: map[string]string{fmt.Sprint(i): "x"}}}
		require.NoError(t, s.Put("/api/v1/namespaces/a/pods/"+p.Name, p))
	}
	require.NoError(t, s.Put("/api/v1/namespaces/b/pods/b", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "b"}}))
	names := func(namespace, selector string) (all string) {
		var list corev1.PodList
		require.NoError(t, c.List(t.Context(), &list, namespace, metav1.ListOptions{LabelSelector: selector}, func() {
			for _, p := range list.Items {
				require.LessOrEqual(t, len(p.Labels), 1)
				all += p.Name
			}
		}))
		return all
	}
	require.Equal(t, "01234", names("a", ""))
	require.Equal(t, "01234b", names("", ""))
	require.Equal(t, "3", names("", "3=x"))
}

func TestWorkloads(t *testing.T) {
	s := &clustertest.Server{Page: 1}
	c := client(t, s)
	asks := metav1.ObjectMeta{Annotations: map[string]string{"x": "template"}}
	yes := true
	put := func(group, resource, name string, own metav1.ObjectMeta, kind string) {
		own.Name, own.Namespace = name, "a"
		var err error
		switch where := "/apis/" + group + "/v1/namespaces/a/" + resource + "/" + name; kind {
		case "Deployment":
			err = s.Put(where, &appsv1.Deployment{ObjectMeta: own, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{ObjectMeta: asks}}})
		case "CronJob":
			err = s.Put(where, &batchv1.CronJob{ObjectMeta: own, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{ObjectMeta: asks}}}}})
		default:
			err = s.Put(where, &batchv1.Job{ObjectMeta: own})
		}
		require.NoError(t, err)
	}
	put("apps", "deployments", "d1", metav1.ObjectMeta{}, "Deployment")
	put("apps", "deployments", "d2", metav1.ObjectMeta{}, "Deployment")
	put("batch", "cronjobs", "c", metav1.ObjectMeta{}, "CronJob")
	put("batch", "jobs", "c-1", metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "CronJob", Name: "c", Controller: &yes}}}, "Job")
	put("batch", "jobs", "j", metav1.ObjectMeta{}, "Job")
	for _, namespace := range []string{"", "a"} {
		var found []string
		require.NoError(t, c.Workloads(t.Context(), namespace, func(w cluster.Workload) {
			found = append(found, w.Kind+" "+w.Own.Name+" "+w.Template.Annotations["x"])
		}))
		require.Equal(t, []string{"Deployment d1 template", "Deployment d2 template", "Job j ", "CronJob c template"}, found)
	}
}

// What the API server does not have at all is no error for Named.
func TestNamed(t *testing.T) {
	s := &clustertest.Server{Intercept: func(r *http.Request) *metav1.Status {
		if strings.HasSuffix(r.URL.Path, "mutatingadmissionpolicies") {
			return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound}
		}
		return nil
	}}
	c := client(t, s)
	found, err := c.Named(t.Context(), schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}, "mutatingadmissionpolicies", "")
	require.NoError(t, err)
	require.Empty(t, found)
}

// An answer that is too large is refused.
func TestAskIsBounded(t *testing.T) {
	s := &clustertest.Server{Handle: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 4 << 20
		if strings.Contains(r.URL.Path, "large") {
			size++
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), size))
	})}
	c := client(t, s)
	data, err := c.Ask(t.Context(), types.NamespacedName{Namespace: "a", Name: "p"}, 1, "metrics")
	require.NoError(t, err)
	require.Len(t, data, 4<<20)
	_, err = c.Ask(t.Context(), types.NamespacedName{Namespace: "a", Name: "large"}, 1, "metrics")
	require.ErrorContains(t, err, "more than")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Ask(ctx, types.NamespacedName{Namespace: "a", Name: "p"}, 1, "metrics")
	require.ErrorIs(t, err, context.Canceled)
}

func TestConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(file, []byte(`{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"a","namespace":"mine"}},{"name":"b","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"http://127.0.0.1:1"}}]}`), 0o600))
	c, namespace, err := cluster.Connect(cluster.Config{Kubeconfig: file})
	require.NoError(t, err)
	require.Equal(t, "mine", namespace)
	_, err = c.Version(t.Context())
	require.ErrorContains(t, err, "ask for the version")
	_, namespace, err = cluster.Connect(cluster.Config{Kubeconfig: file, Context: "b"})
	require.NoError(t, err)
	require.Equal(t, "default", namespace)
	_, _, err = cluster.Connect(cluster.Config{Kubeconfig: file, Context: "no"})
	require.ErrorContains(t, err, "no usable configuration")
}
