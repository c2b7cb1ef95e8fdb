package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/spelling"
)

// typos is how many letters a name may differ in from the one that is meant.
const typos = 2

// toAsk is how a pod asks for a sidecar.
const toAsk = `the annotation ` + inject.AnnotationInject + `: "true"`

// unread finds what was meant to ask for a sidecar and does not. The API server keeps
// such pods away from what injects, so nobody else tells.
func (f *fleet) unread(ctx context.Context) Finding {
	found := slices.Clone(f.strays)
	err := f.Cluster.Workloads(ctx, f.Pods, func(w cluster.Workload) {
		for _, why := range stray(w.Template) {
			found = append(found, fmt.Sprintf("%s %s/%s: %s", w.Kind, w.Own.Namespace, w.Own.Name, why))
		}
	})
	switch {
	case apierrors.IsForbidden(err):
		return skipped("%v", err)
	case err != nil:
		return failed("%v", err)
	case len(found) > 0:
		return warning("%d names have no effect", len(found)).with(found)
	}
	return ok("no pod has one that nobody reads")
}

// stray says what of a pod's metadata nobody reads, and what was meant. What makes
// pods be refused, refused tells.
func stray(o metav1.ObjectMeta) []string {
	var found []string
	_, decided := o.Annotations[inject.AnnotationInject]
	known := knownNames()
	var idle []string // they have an effect on pods that ask
	for _, name := range slices.Sorted(maps.Keys(o.Annotations)) {
		ours := strings.HasPrefix(name, inject.Prefix)
		switch meant := spelling.Nearest(name, known, typos); {
		case name == inject.AnnotationInject, name == inject.AnnotationStatus, ours && decided:
		case name == meant:
			idle = append(idle, name)
		case meant != "":
			found = append(found, fmt.Sprintf("the annotation %s is not known: did you mean %s?", name, meant))
		case ours:
			found = append(found, fmt.Sprintf("the annotation %s is not known", name))
		}
	}
	if len(idle) > 0 {
		found = append(found, fmt.Sprintf("it has %s, and does not ask for a sidecar: want %s", strings.Join(idle, ", "), toAsk))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
		ours := strings.HasPrefix(name, inject.Prefix) && name != inject.LabelInjected
		if !decided && (ours || spelling.Nearest(name, known, typos) == inject.AnnotationInject && name != inject.LabelInjected) {
			found = append(found, fmt.Sprintf("the label %s has no effect: want %s", name, toAsk))
		}
	}
	return found
}

// knownNames are the annotations that a user may set.
func knownNames() []string {
	names := []string{inject.AnnotationInject}
	for _, a := range inject.Annotations() {
		names = append(names, inject.Prefix+a.Name)
	}
	return names
}
