package cluster

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	core      = corev1.SchemeGroupVersion
	admission = admissionregistrationv1.SchemeGroupVersion
	batch     = batchv1.SchemeGroupVersion
	access    = authorizationv1.SchemeGroupVersion
)

// groups holds the kinds that are known, by their group.
var groups = map[schema.GroupVersion][]runtime.Object{
	core: {
		&corev1.Pod{}, &corev1.PodList{}, &corev1.Secret{}, &corev1.SecretList{}, &corev1.Namespace{}, &corev1.EventList{},
	},
	batch: {&batchv1.JobList{}},
	admission: {
		&admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.MutatingWebhookConfigurationList{},
	},
	access: {&authorizationv1.SelfSubjectAccessReview{}},
}

func register(scheme *runtime.Scheme) {
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for gv, kinds := range groups {
		scheme.AddKnownTypes(gv, kinds...)
		metav1.AddToGroupVersion(scheme, gv)
	}
}

// kind is where objects of one Go type are.
type kind struct {
	group      schema.GroupVersion
	resource   string
	namespaced bool
}

// kindOf panics for a type that is not registered: that is a bug of its caller.
func kindOf(obj runtime.Object) kind {
	switch obj.(type) {
	case *corev1.Pod, *corev1.PodList:
		return kind{core, "pods", true}
	case *corev1.Secret, *corev1.SecretList:
		return kind{core, "secrets", true}
	case *corev1.Namespace:
		return kind{core, "namespaces", false}
	case *corev1.EventList:
		return kind{core, "events", true}
	case *batchv1.JobList:
		return kind{batch, "jobs", true}
	case *admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.MutatingWebhookConfigurationList:
		return kind{admission, "mutatingwebhookconfigurations", false}
	case *authorizationv1.SelfSubjectAccessReview:
		return kind{access, "selfsubjectaccessreviews", false}
	default:
		panic(fmt.Sprintf("cluster: no kind is known for %T", obj))
	}
}
