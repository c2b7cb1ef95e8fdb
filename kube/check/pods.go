package check

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/inject"
)

// fleet is what of the pods matters here. Only pods that ask for a sidecar or have
// one are kept.
type fleet struct {
	Target
	pods []corev1.Pod
	// strays are the names without effect on pods that no workload made.
	strays []string
}

const idPods = "pods-found"

// DataPlane returns the checks of pods and sidecars.
func DataPlane(t Target) []Check {
	f := &fleet{Target: t}
	need := []string{idVersion, idPods}
	return []Check{
		t.version(),
		{
			ID: idPods, Group: groupPods, Name: "pods can be looked at", Needs: need[:1], Ask: f.load,
			Hint: "ask somebody with the right to list pods, or give --pods-in a namespace of your own",
		},
		{
			ID: "annotation-on-template", Group: groupPods, Name: "annotations are where they have an effect", Needs: need, Ask: f.misplaced,
			Hint: "move the annotation from the object's own metadata to spec.template.metadata (of a CronJob: spec.jobTemplate.spec.template.metadata)",
		},
		{
			ID: "annotation-values", Group: groupPods, Name: "annotations of templates are understood", Needs: need, Ask: f.misspelt,
			Hint: "put the value right: until then such pods are refused, which the events of their ReplicaSet or Job show",
		},
		{
			ID: "annotation-names", Group: groupPods, Name: "annotations of pods are ones that somebody reads", Needs: need, Ask: f.unread,
			Hint: "write on the pod template what the line says; docs/kubernetes/injection.md lists the annotations",
		},
		{
			ID: "pods-injected", Group: groupPods, Name: "pods that ask have a sidecar", Needs: need, Ask: f.bare,
			Hint: "they were created before the injector was there, or while it was away: kubectl rollout restart their workload",
		},
		{
			ID: "sidecars-running", Group: groupSidecars, Name: "sidecars run", Needs: need, Ask: f.running,
			Hint: "kubectl logs POD -c nearside, and --previous for the life before; kubectl describe pod POD where it has not started, for which a missing Secret is one reason; after OOMKilled give it more with the annotation " + inject.Prefix + "memory",
		},
		{
			ID: "sidecars-fresh", Group: groupSidecars, Name: "sidecars follow their stream", Needs: need, Ask: f.fresh,
			Hint: "kubectl logs POD -c nearside says what keeps it from NATS; while its staleness bound is broken, a sidecar answers nothing from memory (bypass)",
		},
		{
			ID: "sidecars-version", Group: groupSidecars, Name: "sidecars are of this program's version", Needs: need, Ask: f.versions,
			Hint: "after an upgrade, kubectl rollout restart the workloads whose sidecars are older",
		},
	}
}

// load lists the pods.
func (f *fleet) load(ctx context.Context) Finding {
	if f.Pods != "" {
		// Who may not look at namespaces is told of pods alone.
		if err := f.Cluster.Get(ctx, &corev1.Namespace{}, types.NamespacedName{Name: f.Pods}); apierrors.IsNotFound(err) {
			none := failed("there is no namespace %s", f.Pods)
			none.Hint = "look at --pods-in and at --context"
			return none
		}
	}
	var list corev1.PodList
	asked, have := 0, 0
	err := f.Cluster.List(ctx, &list, f.Pods, metav1.ListOptions{}, func() {
		for _, p := range list.Items {
			if metav1.GetControllerOfNoCopy(&p) == nil {
				for _, why := range stray(p.ObjectMeta) {
					f.strays = append(f.strays, "Pod "+nameOf(&p)+": "+why)
				}
			}
			wanted := p.Annotations[inject.AnnotationInject] == "true"
			if wanted {
				asked++
			}
			if hasSidecar(&p) {
				have++
			}
			if wanted || hasSidecar(&p) {
				p.ManagedFields = nil
				f.pods = append(f.pods, p)
			}
		}
	})
	switch {
	case apierrors.IsForbidden(err):
		return skipped("%v", err)
	case err != nil:
		return failed("%v", err)
	}
	return ok("%d ask for a sidecar, %d have one", asked, have)
}

// sidecar returns the sidecar's container of a pod.
func sidecar(p *corev1.Pod) (corev1.Container, bool) {
	all := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	at := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == inject.ContainerName })
	if at < 0 {
		return corev1.Container{}, false
	}
	return all[at], true
}

func hasSidecar(p *corev1.Pod) bool {
	_, has := sidecar(p)
	return has
}

func nameOf(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// alive reports whether a pod is there to stay.
func alive(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// misplaced finds annotations of nearside where nobody reads them: on a workload
// and not on its template, as on a namespace.
func (f *fleet) misplaced(ctx context.Context) Finding {
	var found []string
	err := f.Cluster.Workloads(ctx, f.Pods, func(w cluster.Workload) {
		if name := ours(w.Own); name != "" && ours(w.Template) == "" {
			found = append(found, fmt.Sprintf("%s %s/%s has %s on itself, and not on its pod template", w.Kind, w.Own.Namespace, w.Own.Name, name))
		}
	})
	if apierrors.IsForbidden(err) {
		return skipped("%v", err)
	}
	if err != nil {
		return failed("%v", err)
	}
	if f.Pods == "" {
		// Who may not list namespaces is told of workloads alone.
		spaces, err := f.Cluster.Named(ctx, schema.GroupVersion{Version: "v1"}, "namespaces", "")
		if err != nil && !apierrors.IsForbidden(err) {
			return failed("%v", err)
		}
		for _, s := range spaces {
			if name := ours(s); name != "" {
				found = append(found, fmt.Sprintf("Namespace %s has %s, which has no effect there: want it on pod templates, as an annotation", s.Name, name))
			}
		}
	}
	if len(found) > 0 {
		return failed("%d annotations have no effect", len(found)).with(found)
	}
	return ok("no workload has one on itself alone")
}

// ours returns the first annotation or label by which metadata asks something of
// the injection.
func ours(o metav1.ObjectMeta) string {
	var names []string
	for _, m := range []map[string]string{o.Annotations, o.Labels} {
		for name := range m {
			if strings.HasPrefix(name, inject.Prefix) && name != inject.AnnotationStatus && name != inject.LabelInjected {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// misspelt finds templates whose pods are refused.
func (f *fleet) misspelt(ctx context.Context) Finding {
	var found []string
	err := f.Cluster.Workloads(ctx, f.Pods, func(w cluster.Workload) {
		if why := refused(w.Template); why != nil {
			found = append(found, fmt.Sprintf("%s %s/%s: %v", w.Kind, w.Own.Namespace, w.Own.Name, why))
		}
	})
	switch {
	case apierrors.IsForbidden(err):
		return skipped("%v", err)
	case err != nil:
		return failed("%v", err)
	case len(found) > 0:
		return failed("pods of %d templates are refused", len(found)).with(found)
	}
	return ok("no template has a wrong one")
}

// refused says why a template's pods are, nil if its annotations are good.
func refused(o metav1.ObjectMeta) error {
	s := inject.Defaults()
	wanted, err := s.Wanted(o)
	if err != nil || !wanted {
		return err
	}
	_, err = s.Inject(&corev1.Pod{ObjectMeta: *o.DeepCopy()})
	return err
}

// bare finds pods that ask for a sidecar and have none.
func (f *fleet) bare(ctx context.Context) Finding {
	var found []string
	for _, p := range f.pods {
		if alive(&p) && !hasSidecar(&p) {
			found = append(found, nameOf(&p)+" has no container "+inject.ContainerName)
		}
	}
	if len(found) == 0 {
		return ok("all of them")
	}
	none := failed("%d pods ask for a sidecar and have none", len(found)).with(found)
	if by, err := f.find(ctx); err == nil && by.kind == "" {
		none.Hint = "nothing injects in this cluster, so that new pods would have none either: install the chart, or take the annotation from their templates"
	}
	return none
}

// versions compares what was injected with this program.
func (f *fleet) versions(context.Context) Finding {
	if f.Version == "" || f.Version == "dev" {
		return skipped("this program is a build of no version")
	}
	var other []string
	n := 0
	for _, p := range f.pods {
		c, has := sidecar(&p)
		if !has || !alive(&p) {
			continue
		}
		n++
		if tag := tagOf(c.Image); !sameVersion(tag, f.Version) {
			other = append(other, fmt.Sprintf("%s is %s%s", nameOf(&p), tag, injectedBy(&p)))
		}
	}
	if len(other) > 0 {
		return warning("this program is %s, and %d of %d sidecars are not", f.Version, len(other), n).with(other)
	}
	return ok("%d sidecars", n)
}

// injectedBy tells which version injected, if the pod says so.
func injectedBy(p *corev1.Pod) string {
	var status struct{ Version string }
	if json.Unmarshal([]byte(p.Annotations[inject.AnnotationStatus]), &status) != nil || status.Version == "" {
		return ""
	}
	return ", injected by " + status.Version
}
