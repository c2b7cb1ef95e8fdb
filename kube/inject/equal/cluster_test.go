//go:build cluster

package equal

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is the API server that KUBECONFIG names.
type cluster struct {
	*kubernetes.Clientset
	namespace string
}

func newCluster(t *testing.T) cluster {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	require.NoError(t, err, "KUBECONFIG must name a cluster of Kubernetes 1.36 or later")
	config.QPS, config.Burst = 1000, 1000
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "nearside-equal-"}}
	ns, err = client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	require.NoError(t, err)
	c := cluster{client, ns.Name}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}))
	})
	return c
}

// install gives the cluster the policies of a release, for the namespace of the
// test alone, and waits until the API server goes by them.
func (c cluster) install(t *testing.T, p policies) {
	own := metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: c.namespace}}
	meta := metav1.ObjectMeta{Name: c.namespace}
	m, v, mb, vb := &p.mutating, &p.validating, &p.mutatingBinding, &p.validatingBinding
	m.ObjectMeta, v.ObjectMeta, mb.ObjectMeta, vb.ObjectMeta = meta, meta, meta, meta
	m.Spec.MatchConstraints.NamespaceSelector, v.Spec.MatchConstraints.NamespaceSelector = &own, &own
	mb.Spec.PolicyName, vb.Spec.PolicyName = meta.Name, meta.Name
	r, ctx, strict := c.AdmissionregistrationV1(), t.Context(), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, errors.Join(
			r.MutatingAdmissionPolicyBindings().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
			r.MutatingAdmissionPolicies().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
			r.ValidatingAdmissionPolicyBindings().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
			r.ValidatingAdmissionPolicies().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
		))
	})
	_, err1 := r.MutatingAdmissionPolicies().Create(ctx, m, strict)
	_, err2 := r.ValidatingAdmissionPolicies().Create(ctx, v, strict)
	_, err3 := r.MutatingAdmissionPolicyBindings().Create(ctx, mb, strict)
	_, err4 := r.ValidatingAdmissionPolicyBindings().Create(ctx, vb, strict)
	require.NoError(t, errors.Join(err1, err2, err3, err4))
	asks := read(t, []byte("metadata: {name: probe, annotations: {nearside.dev/inject: 'true'}}\nspec: {containers: [{name: app, image: x}]}"))
	wrong := asks.DeepCopy()
	wrong.Annotations["nearside.dev/memory"] = "lots"
	require.Eventually(t, func() bool {
		pod, err := c.create(ctx, asks)
		_, refused := c.create(ctx, wrong)
		return err == nil && pod.Labels["nearside.dev/injected"] == "true" && refused != nil && strings.Contains(refused.Error(), "want a whole number")
	}, 30*time.Second, 100*time.Millisecond)
}

// create has the API server admit a pod, and keeps none.
func (c cluster) create(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return c.CoreV1().Pods(c.namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
}

var tokenVolume = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`)

// admitted is the canonical text of what the API server made of a pod. What it
// adds itself stands before or after what others add; names tell it apart.
func admitted(t *testing.T, pod *corev1.Pod) string {
	p := pod.DeepCopy()
	p.UID, p.CreationTimestamp, p.ManagedFields = "", metav1.Time{}, nil
	slices.SortStableFunc(p.Spec.Volumes, func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) })
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			slices.SortStableFunc(c.VolumeMounts, func(a, b corev1.VolumeMount) int { return strings.Compare(a.MountPath, b.MountPath) })
		}
	}
	return tokenVolume.ReplaceAllString(canonical(t, p), "kube-api-access")
}

// TestCluster has a real API server inject every example by the policy, and admit
// every example that Go injected: both are the same pod, or the policy refuses
// with the words of Go.
func TestCluster(t *testing.T) {
	bySettings := make(map[string][]example)
	for _, e := range examples(t, release) {
		if e.kubernetes == current && e.pod.Annotations != nil {
			key, err := json.Marshal(e.given)
			require.NoError(t, err)
			bySettings[string(key)] = append(bySettings[string(key)], e)
		}
	}
	for _, all := range bySettings {
		t.Run("with "+all[0].name, func(t *testing.T) {
			c := newCluster(t)
			c.install(t, policiesOf(t, all[0], release))
			for _, e := range all {
				t.Run(e.name, func(t *testing.T) { c.compare(t, e) })
			}
		})
	}
}

func (c cluster) compare(t *testing.T, e example) {
	wanted := e.pod.DeepCopy()
	_, fault := e.settings.Inject(wanted)
	got, err := c.create(t.Context(), e.pod.DeepCopy())
	if fault != nil {
		require.Error(t, err)
		_, words, _ := strings.Cut(err.Error(), "denied request: ")
		require.Equal(t, fault.Error(), words, err.Error())
		return
	}
	require.NoError(t, err)
	want, err := c.create(t.Context(), wanted)
	require.NoError(t, err)
	require.Equal(t, admitted(t, want), admitted(t, got))
}

// The sidecar keeps the restricted pod security standard.
func TestClusterRestricted(t *testing.T) {
	c := newCluster(t)
	ns, err := c.CoreV1().Namespaces().Get(t.Context(), c.namespace, metav1.GetOptions{})
	require.NoError(t, err)
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	_, err = c.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{})
	require.NoError(t, err)
	for _, e := range examples(t, "v0.0.1") {
		if e.name != "restricted" {
			continue
		}
		for _, mode := range []string{"native", "classic"} {
			pod := e.pod.DeepCopy()
			pod.Annotations["nearside.dev/mode"] = mode
			_, err := e.settings.Inject(pod)
			require.NoError(t, err)
			_, err = c.create(t.Context(), pod)
			require.NoError(t, err)
			pod.Spec.InitContainers, pod.Spec.Containers = nil, append(pod.Spec.InitContainers, pod.Spec.Containers...)
			pod.Spec.Containers[0].SecurityContext, pod.Spec.Containers[0].RestartPolicy, pod.Spec.Containers[0].StartupProbe = nil, nil, nil
			_, err = c.create(t.Context(), pod)
			require.ErrorContains(t, err, "violates PodSecurity", "the namespace does not enforce it")
		}
	}
}
