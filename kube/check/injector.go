package check

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nearside-cache/nearside/kube/cluster"
	"github.com/nearside-cache/nearside/kube/inject"
	"github.com/nearside-cache/nearside/kube/webhook"
)

const (
	// hookName is the webhook's name in its configuration, whatever that is called.
	hookName = "inject.nearside.dev"
	// Labels of what the chart installs.
	selectPolicy   = "app.kubernetes.io/part-of=nearside,app.kubernetes.io/component=policy"
	selectGuard    = "app.kubernetes.io/part-of=nearside,app.kubernetes.io/component=guard"
	selectInjector = "app.kubernetes.io/part-of=nearside,app.kubernetes.io/component=injector"
	// unguarded is what the guard of the chart says of a pod that it refuses.
	unguarded = "nothing has injected one"
	// soon is how long before its end a certificate should have been renewed.
	soon = 7 * 24 * time.Hour

	kindWebhook = "MutatingWebhookConfiguration"
	kindPolicy  = "MutatingAdmissionPolicy"
)

// installed is what gives pods their sidecar.
type installed struct {
	kind, name string // empty: nothing does
	hook       *admissionregistrationv1.MutatingWebhook
}

// find looks for it.
func (t Target) find(ctx context.Context) (i installed, err error) {
	var hooks admissionregistrationv1.MutatingWebhookConfigurationList
	err = t.Cluster.List(ctx, &hooks, "", metav1.ListOptions{}, func() {
		for _, c := range hooks.Items {
			at := slices.IndexFunc(c.Webhooks, func(h admissionregistrationv1.MutatingWebhook) bool { return h.Name == hookName })
			if at >= 0 {
				i = installed{kindWebhook, c.Name, &c.Webhooks[at]}
			}
		}
	})
	if err != nil || i.kind != "" {
		return i, err
	}
	found, err := t.Cluster.Named(ctx, admissionregistrationv1.SchemeGroupVersion, "mutatingadmissionpolicies", selectPolicy)
	if err == nil && len(found) > 0 {
		i = installed{kind: kindPolicy, name: found[0].Name}
	}
	return i, err
}

const (
	idRegistered = "injection-registered"
	idReplicas   = "injector-ready"
)

// injection holds what the checks of the injector find out for one another.
type injection struct {
	Target
	installed
	pods []corev1.Pod // of the injector
}

// Injector returns the checks of what gives pods their sidecar.
func Injector(t Target) []Check {
	i := &injection{Target: t}
	need := []string{idVersion, idRegistered}
	return []Check{
		t.version(),
		t.rightsToCheck(),
		{
			ID: idRegistered, Group: groupInjector, Name: "the API server is told to inject", Needs: need[:1], Ask: i.registered,
			Hint: "install the chart; with injection.mode none, use nearside inject or the library chart",
		},
		{
			ID: idReplicas, Group: groupInjector, Name: "the injector is ready", Needs: need, Ask: i.ready,
			Hint: "kubectl describe and kubectl logs of the injector's pods; their /readyz says why they are not ready",
		},
		{
			ID: "injector-certificate", Group: groupInjector, Name: "the injector's certificate is valid and trusted", Needs: need, Ask: i.certificate,
			Hint: "the injector renews it and patches the caBundle by itself: its log says what keeps it from doing so, such as a missing right",
		},
		{
			ID: "injector-narrow", Group: groupInjector, Name: "pods that do not ask need no injector", Needs: need, Ask: i.narrow,
			Hint: "give the webhook the matchConditions of the chart, or failurePolicy Ignore",
		},
		{
			ID: "injection-works", Group: groupInjector, Name: "a pod that asks gets a sidecar", Needs: need, Ask: i.works,
			Hint: "look at the namespaceSelector, at a NetworkPolicy between API server and injector, and at the injector's log",
		},
		{
			ID: "injector-version", Group: groupInjector, Name: "the injector is of this program's version", Needs: need, Ask: i.version,
			Hint: "use the nearside of the installed version, or upgrade the installation",
		},
		{
			ID: "stream-job", Group: groupNATS, Name: "what the release runs for the stream is in order", Needs: need[:1], Ask: t.stream,
			Hint: "kubectl describe and kubectl logs of what is named; once NATS is well, helm upgrade with --reset-then-reuse-values makes the Job anew",
		},
	}
}

func (i *injection) registered(ctx context.Context) (f Finding) {
	var err error
	switch i.installed, err = i.find(ctx); {
	case apierrors.IsForbidden(err):
		return skipped("%v", err)
	case err != nil:
		return failed("%v", err)
	case i.kind == "":
		return warning("neither a webhook nor an admission policy of nearside is there")
	}
	return ok("by the %s %s, %s", i.kind, i.name, i.guard(ctx))
}

// guard tells of the policy that refuses pods which nothing has injected. To have none
// is no fault: old clusters cannot, and it may be unwanted.
func (i *injection) guard(ctx context.Context) string {
	switch found, err := i.Cluster.Named(ctx, admissionregistrationv1.SchemeGroupVersion, "validatingadmissionpolicies", selectGuard); {
	case err != nil:
		return "and whether there is a guard is not known: " + err.Error()
	case len(found) == 0:
		return "without a guard"
	}
	return "with a guard"
}

// unless says why a check of the webhook has nothing to look at.
func (i *injection) unless() (Finding, bool) {
	switch i.kind {
	case kindPolicy:
		return skipped("an admission policy injects: there is no injector"), true
	case "":
		return skipped("nothing injects"), true
	}
	return Finding{}, false
}

func (i *injection) ready(ctx context.Context) Finding {
	if f, none := i.unless(); none {
		return f
	}
	service := i.hook.ClientConfig.Service
	if service == nil {
		return skipped("the webhook has a URL and no Service")
	}
	var list corev1.PodList
	err := i.Cluster.List(ctx, &list, service.Namespace, metav1.ListOptions{LabelSelector: selectInjector}, func() {
		for _, p := range list.Items {
			if alive(&p) { // a replica that an upgrade has replaced serves on for a while
				i.pods = append(i.pods, p)
			}
		}
	})
	if err != nil {
		return skipped("%v", err)
	}
	var bad []string
	for _, p := range i.pods {
		if !isReady(&p) {
			bad = append(bad, p.Namespace+"/"+p.Name+" is not ready")
		}
	}
	switch good := len(i.pods) - len(bad); {
	case good == 0:
		return failed("no replica is ready: pods that ask for a sidecar cannot start").with(bad)
	case len(bad) > 0:
		return warning("%d of %d replicas are ready", good, len(i.pods)).with(bad)
	case good == 1:
		return warning("there is one replica only: while it is away, pods that ask for a sidecar cannot start")
	default:
		return ok("%d replicas", good)
	}
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (i *injection) certificate(ctx context.Context) Finding {
	if f, none := i.unless(); none {
		return f
	}
	if len(i.hook.ClientConfig.CABundle) == 0 {
		return failed("the webhook's caBundle is empty: the API server trusts no injector")
	}
	service := i.hook.ClientConfig.Service
	env := i.environment()
	if service == nil || env["NEARSIDE_CERT_DIR"] != "" {
		return i.bundled("somebody else renews the certificate")
	}
	at := types.NamespacedName{Namespace: service.Namespace, Name: env["NEARSIDE_SECRET"]}
	if at.Name == "" {
		at.Name = service.Name + "-tls"
	}
	var secret corev1.Secret
	err := i.Cluster.Get(ctx, &secret, at)
	if apierrors.IsForbidden(err) {
		return skipped("no right to read the Secret %s", at)
	}
	if err != nil {
		return failed("%v", err)
	}
	bundle, expires, err := webhook.Bundle(secret.Data)
	switch left := time.Until(expires); {
	case err != nil:
		return failed("%s: %v", at, err)
	case left <= 0:
		return failed("it has expired at %s", expires.Format(time.RFC3339))
	case !bytes.Equal(bytes.TrimSpace(bundle), bytes.TrimSpace(i.hook.ClientConfig.CABundle)):
		return failed("the webhook's caBundle is not what the Secret %s says: the API server does not trust the injector", at)
	case left < soon:
		return warning("it expires at %s and should have been renewed by now", expires.Format(time.RFC3339))
	}
	return ok("valid until %s", expires.Format(time.DateOnly))
}

// bundled looks at the authorities in the caBundle, where that is all there is.
func (i *injection) bundled(why string) Finding {
	block, _ := pem.Decode(i.hook.ClientConfig.CABundle)
	if block == nil {
		return failed("the webhook's caBundle holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return failed("the webhook's caBundle cannot be read: %v", err)
	}
	if time.Now().After(cert.NotAfter) {
		return failed("the authority in the webhook's caBundle has expired at %s", cert.NotAfter.Format(time.RFC3339))
	}
	return ok("%s; its authority is valid until %s", why, cert.NotAfter.Format(time.DateOnly))
}

// environment is what the injector is told.
func (i *injection) environment() map[string]string {
	env := map[string]string{}
	for _, p := range i.pods {
		for _, c := range p.Spec.Containers {
			for _, v := range c.Env {
				env[v.Name] = v.Value
			}
		}
	}
	return env
}

func (i *injection) narrow(context.Context) Finding {
	if f, none := i.unless(); none {
		return f
	}
	fails := i.hook.FailurePolicy == nil || *i.hook.FailurePolicy == admissionregistrationv1.Fail
	if fails && len(i.hook.MatchConditions) == 0 {
		return warning("failurePolicy is Fail and there are no matchConditions: while no injector is ready, no pod at all can start")
	}
	return ok("only pods that ask go to the injector")
}

// works has the API server admit a pod, and not create it.
func (i *injection) works(ctx context.Context) Finding {
	if i.kind == "" {
		return skipped("nothing injects")
	}
	can, err := i.Cluster.Can(ctx, cluster.Right{Verb: "create", Resource: "pods", Namespace: i.Trial})
	if err != nil || !can {
		return skipped("no right to create pods in %s", i.Trial)
	}
	pod := trial(i.Trial)
	err = i.Cluster.Try(ctx, pod)
	switch {
	case err != nil && (strings.Contains(err.Error(), "failed calling webhook") || strings.Contains(err.Error(), unguarded)):
		return failed("%v", err)
	case err != nil:
		return warning("the pod was refused: %v", err)
	case !hasSidecar(pod):
		return failed("the pod came back without a sidecar, in namespace %s", i.Trial)
	}
	return ok("tried in namespace %s, without creating the pod", i.Trial)
}

// trial is a pod that no policy has a reason to refuse.
func trial(namespace string) *corev1.Pod {
	yes, no, user := true, false, int64(65532)
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "nearside-check", Namespace: namespace, Annotations: map[string]string{inject.AnnotationInject: "true"}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "app", Image: "nearside.invalid/check",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

func (i *injection) version(context.Context) Finding {
	if f, none := i.unless(); none {
		return f
	}
	if i.Version == "" || i.Version == "dev" {
		return skipped("this program is a build of no version")
	}
	var other []string
	for _, p := range i.pods {
		for _, c := range p.Spec.Containers {
			if tag := tagOf(c.Image); c.Name == "injector" && !sameVersion(tag, i.Version) {
				other = append(other, fmt.Sprintf("%s/%s is %s", p.Namespace, p.Name, tag))
			}
		}
	}
	if len(other) > 0 {
		return warning("this program is %s, and not all replicas are", i.Version).with(other)
	}
	return ok("%s", i.Version)
}

// tagOf is what an image says of its version.
func tagOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		return name[at+1:]
	}
	return "(no tag)"
}

func sameVersion(a, b string) bool { return strings.TrimPrefix(a, "v") == strings.TrimPrefix(b, "v") }
