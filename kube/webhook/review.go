package webhook

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/nearside-cache/nearside/kube/inject"
)

// Results of admissions: labels of nearside_injector_admissions_total.
const (
	resultInjected  = "injected"
	resultUnchanged = "unchanged" // not asked for, or injected before
	resultDenied    = "denied"    // an annotation is wrong
	resultIgnored   = "ignored"   // no creation of a pod
	resultMalformed = "malformed" // no review, too large, or no JSON
)

var results = []string{resultInjected, resultUnchanged, resultDenied, resultIgnored, resultMalformed}

// errNoReview says that a body is no AdmissionReview of version v1 with a request.
var errNoReview = errors.New("not an AdmissionReview of admission.k8s.io/v1 with a request")

var pods = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}

// decode reads a review. It keeps parts of data.
func decode(data []byte) (*admissionv1.AdmissionReview, error) {
	var review admissionv1.AdmissionReview
	// As API servers read: names of members are case-sensitive.
	if err := json.Unmarshal(data, &review); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoReview, err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" {
		return nil, fmt.Errorf("%w: it is a %.80q of %.80q", errNoReview, review.Kind, review.APIVersion)
	}
	if review.Request == nil || review.Request.UID == "" {
		return nil, fmt.Errorf("%w: there is no request, or it has no uid", errNoReview)
	}
	return &review, nil
}

// admit answers a review's request. It has no effects but its answer, so that it
// may be asked for a dry run, and asked again: what is injected is left alone. The
// error says that the object is no pod, although the request says so.
func admit(s inject.Settings, r *admissionv1.AdmissionRequest) (a *admissionv1.AdmissionResponse, result string, err error) {
	a = &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	if r.Resource != pods || r.SubResource != "" || r.Operation != admissionv1.Create {
		return a, resultIgnored, nil
	}
	var pod corev1.Pod
	if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
		return nil, resultMalformed, fmt.Errorf("%w: its object is no pod: %w", errNoReview, err)
	}
	wanted, err := s.Wanted(pod.ObjectMeta)
	if err != nil {
		return deny(a, err), resultDenied, nil
	}
	a.Warnings = suspicions(pod.ObjectMeta, wanted)
	if !wanted {
		return a, resultUnchanged, nil
	}
	before := pod.DeepCopy()
	changed, err := s.Inject(&pod)
	if err != nil {
		return deny(a, err), resultDenied, nil
	}
	if !changed {
		return a, resultUnchanged, nil
	}
	if a.Patch, err = difference(before, &pod); err != nil {
		return nil, resultMalformed, err
	}
	kind := admissionv1.PatchTypeJSONPatch
	a.PatchType = &kind
	return a, resultInjected, nil
}

// suspicions warns of what is allowed and probably not meant.
func suspicions(o metav1.ObjectMeta, wanted bool) []string {
	if wanted {
		return nil
	}
	var found []string
	if o.Labels[inject.AnnotationInject] == "true" {
		found = append(found, "the label "+inject.AnnotationInject+" has no effect: nearside wants an annotation of that name")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Annotations)) {
		if strings.HasPrefix(name, inject.Prefix) && name != inject.AnnotationInject && name != inject.AnnotationStatus {
			found = append(found, "the annotation "+name+" has no effect: "+inject.AnnotationInject+" is not true")
		}
	}
	return found
}

// deny refuses the pod for a reason that its author can mend.
func deny(a *admissionv1.AdmissionResponse, why error) *admissionv1.AdmissionResponse {
	a.Allowed = false
	a.Result = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: why.Error(),
	}
	return a
}

// answer wraps a response as the API server wants it.
func answer(a *admissionv1.AdmissionResponse) *admissionv1.AdmissionReview {
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: a,
	}
}
